//! The spans that this crate opens itself: one for each call and one for each item.
//!
//! Their fields have the names that OpenTelemetry gives such, so that its layers for `tracing`
//! take them for what they mean.

use std::sync::OnceLock;

use tracing_core::callsite::{self, Callsite};
use tracing_core::field::FieldSet;
use tracing_core::metadata::Kind;
use tracing_core::subscriber::Interest;
use tracing_core::{Level, Metadata, identify_callsite};

/// Of whose places these are.
pub(super) const TARGET: &str = "procpool";

macro_rules! own_span {
    ($(#[$about:meta])* $function:ident, $site:ident, $name:literal, $fields:expr) => {
        struct $site;

        impl Callsite for $site {
            fn set_interest(&self, _interest: Interest) {
                // Each span asks.
            }

            fn metadata(&self) -> &Metadata<'_> {
                $function()
            }
        }

        $(#[$about])*
        pub(super) fn $function() -> &'static Metadata<'static> {
            static SITE: $site = $site;
            static METADATA: Metadata<'static> = Metadata::new(
                $name,
                TARGET,
                Level::INFO,
                None,
                None,
                None,
                FieldSet::new($fields, identify_callsite!(&SITE)),
                Kind::SPAN,
            );
            static REGISTERED: OnceLock<()> = OnceLock::new();
            if REGISTERED.set(()).is_ok() {
                callsite::register(&SITE);
            }
            &METADATA
        }
    };
}

own_span! {
    /// Of a call, in the program.
    call, CallSite, "call", &["otel.name", "otel.kind", "code.function.name"]
}

own_span! {
    /// Of an item, in the worker.
    item, ItemSite, "item", &[
        "otel.name",
        "otel.kind",
        "code.function.name",
        "process.pid",
        // The worker does not know it.
        "procpool.item.index",
        "otel.status_code",
        "otel.status_description",
        "error.type",
    ]
}
