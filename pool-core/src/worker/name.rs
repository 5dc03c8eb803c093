//! What a function is called.

use std::any::type_name;

/// What makes another function of one: in the name of the result, between this and the first comma
/// of the same level, is the name of the first.
const WRAPPERS: [&str; 5] = [
    "procpool_core::worker::context::contextual<",
    "procpool_core::worker::initializer::beginning<",
    "procpool_core::worker::state::stateful<",
    "procpool_core::worker::state::stateful_from<",
    "procpool_core::error::remote_error::remote_errors<",
];

/// The path of a function, or of the place where a closure is: that of the user's, whatever it is
/// wrapped in.
pub(super) fn name_of<F>() -> &'static str {
    let mut name = type_name::<F>();
    while let Some(rest) = WRAPPERS.iter().find_map(|it| name.strip_prefix(it)) {
        name = first_argument(rest);
    }
    name
}

/// The first of a list of types, which ends with a bracket that was opened before.
fn first_argument(list: &str) -> &str {
    let mut depth = 0;
    let mut before = ' ';
    for (at, c) in list.char_indices() {
        match c {
            ',' if depth == 0 => return &list[..at],
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' | ')' | ']' if depth == 0 => return &list[..at],
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapper_has_the_name_of_what_it_wraps() {
        fn generic<T>(state: &mut u64, x: u64) -> u64 {
            *state += x + size_of::<T>() as u64;
            *state
        }
        fn name<F>(_: F) -> &'static str {
            name_of::<F>()
        }
        let stateful = crate::worker::state::stateful(generic::<fn(u8, [u8; 2]) -> u8>, || 0_u64);
        assert!(
            name(stateful).ends_with("::generic<fn(u8, [u8; 2]) -> u8>"),
            "{}",
            name(stateful)
        );
        let fallible = crate::remote_errors(|x: u16| u8::try_from(x + 1));
        let path = "a_wrapper_has_the_name_of_what_it_wraps::{{closure}}";
        assert!(name(fallible).ends_with(path), "{}", name(fallible));
        assert!(name(generic::<u8>).ends_with("::generic<u8>"));
    }
}
