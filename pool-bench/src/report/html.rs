//! html
use crate::record::Report;
use anyhow::Result;
/// page
pub fn page(_report: &Report) -> Result<String> {
    Ok(String::new())
}
