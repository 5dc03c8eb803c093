//! What is different in a worker's environment.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

/// What a worker's environment has, and has not, unlike that of the process that starts it: what a
/// builder's `env`, `env_remove` and `env_clear` say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentChanges {
    /// It is emptied first.
    pub(crate) clear: bool,
    /// What is set, or removed, in order.
    pub(crate) changes: Vec<(OsString, Option<OsString>)>,
}

impl EnvironmentChanges {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn set(&mut self, name: &OsStr, value: Option<OsString>) {
        self.changes.push((name.into(), value));
    }

    pub(crate) fn clear(&mut self) {
        self.clear = true;
        self.changes.clear();
    }

    /// Removes it, unless something else says what it is, now or later.
    pub(crate) fn hide(&mut self, name: &OsStr) {
        self.changes.insert(0, (name.into(), None));
    }

    /// What becomes of these variables: their names and values.
    #[must_use]
    pub fn applied_to(
        &self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let kept = variables.into_iter().filter(|_| !self.clear);
        let mut variables = Vec::from_iter(kept);
        for (name, value) in &self.changes {
            variables.retain(|(other, _)| other != name);
            variables.extend(value.iter().map(|value| (name.clone(), value.clone())));
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(changes: &EnvironmentChanges) -> String {
        let variables = [("A", "1"), ("B", "2")].map(|(name, value)| (name.into(), value.into()));
        let join = |(name, value): (OsString, OsString)| {
            format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
        };
        let variables = changes.applied_to(variables).into_iter().map(join);
        variables.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn changes_are_made_in_order() {
        let mut changes = EnvironmentChanges::default();
        assert!(changes.is_empty());
        assert_eq!(applied(&changes), "A=1 B=2");
        changes.set("A".as_ref(), None);
        changes.set("C".as_ref(), Some("3".into()));
        assert_eq!(applied(&changes), "B=2 C=3");
        changes.set("A".as_ref(), Some("4".into()));
        changes.hide("C".as_ref());
        changes.hide("B".as_ref());
        assert_eq!(applied(&changes), "C=3 A=4");
        changes.clear();
        assert_eq!(applied(&changes), "");
        changes.set("D".as_ref(), Some("5".into()));
        assert_eq!(applied(&changes), "D=5");
    }
}
