//! The report as a file for programs.

use anyhow::Result;
use serde_json::Value;

use crate::record::Report;

/// JSON with a line for each record, so that differences between two runs can be read.
///
/// # Errors
/// When a number has no form in JSON.
pub fn text(report: &Report) -> Result<String> {
    let Value::Object(mut fields) = serde_json::to_value(report)? else {
        anyhow::bail!("a report is an object");
    };
    let mut text = "{\n".to_owned();
    let lists = ["targets", "records"].map(|name| (name, fields.remove(name)));
    for (name, value) in fields {
        text += &format!("{}: {value},\n", Value::from(name));
    }
    for (place, (name, value)) in lists.into_iter().enumerate() {
        let rows: Vec<String> = value
            .iter()
            .flat_map(Value::as_array)
            .flatten()
            .map(Value::to_string)
            .collect();
        let end = if place == 0 { "," } else { "" };
        text += &format!("\"{name}\": [\n{}\n]{end}\n", rows.join(",\n"));
    }
    Ok(text + "}\n")
}
