//! Places in a worker's program, as the parent's subscriber knows places in a program.
//!
//! Subscribers know an event or a span by metadata that live forever. So those of each callsite are
//! made once, when the first one arrives, and never freed; as many places as there are in a
//! program, and not more than [`MAX_SITES`]: events of others share a few, and spans of others are
//! not opened.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::callsite::{self, Callsite};
use tracing_core::field::FieldSet;
use tracing_core::identify_callsite;
use tracing_core::metadata::Kind;
use tracing_core::subscriber::Interest;
use tracing_core::{Level, Metadata};

/// How many callsites have metadata of their own. More are not believed.
const MAX_SITES: usize = 2048;

/// What makes a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) fields: Vec<String>,
    /// The name of a span; `None`: it is one of events.
    pub(super) span: Option<String>,
}

/// A place as a subscriber knows it.
pub(super) struct Site {
    metadata: OnceLock<Metadata<'static>>,
}

impl Callsite for Site {
    fn set_interest(&self, _interest: Interest) {
        // Each event asks.
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata
            .get()
            .expect("it is set before anybody has it")
    }
}

impl Site {
    /// The metadata of this place. `None`: there are too many. `ours`: it is one of this crate, of
    /// which there are few.
    pub(super) fn metadata_of(place: Place, ours: bool) -> Option<&'static Metadata<'static>> {
        static SITES: OnceLock<Mutex<HashMap<Place, &'static Site>>> = OnceLock::new();
        let sites = SITES.get_or_init(Mutex::default);
        let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = sites.get(&place) {
            return site.metadata.get();
        }
        if sites.len() >= MAX_SITES && !ours {
            return None;
        }
        let site = Self::make(place.clone());
        sites.insert(place, site);
        drop(sites);
        // Subscribers are asked about it; they are the user's.
        callsite::register(site);
        site.metadata.get()
    }

    fn make(place: Place) -> &'static Self {
        let site: &'static Self = Box::leak(Box::new(Self {
            metadata: OnceLock::new(),
        }));
        let keep = |text: String| -> &'static str { text.leak() };
        let names: Vec<&'static str> = place.fields.into_iter().map(keep).collect();
        let fields = FieldSet::new(names.leak(), identify_callsite!(site));
        let (name, kind) = match place.span {
            Some(name) => (keep(name), Kind::SPAN),
            None => ("event of a worker", Kind::EVENT),
        };
        let _ = site.metadata.set(Metadata::new(
            name,
            keep(place.target),
            place.level,
            place.file.map(keep),
            place.line,
            None,
            fields,
            kind,
        ));
        site
    }
}
