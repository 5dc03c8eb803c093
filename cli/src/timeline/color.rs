//! Colours that can be distinguished, also by people who see fewer of them.

/// After Okabe and Ito, "Color Universal Design", a little deeper, so that they carry white text.
const COLORS: [&str; 8] = [
    "#2f7ed8", "#e07b1a", "#1b9e77", "#a05aa8", "#b8860b", "#4aa3c7", "#8c6d5a", "#6b7a8f",
];

/// What failed.
pub(crate) const FAILED: &str = "#d62728";

/// The colour of the function with this place in the legend; beyond the last one, all have the
/// same.
pub(crate) fn of(place: usize) -> &'static str {
    COLORS[place.min(COLORS.len() - 1)]
}
