//! The machine that the server runs on, as resources and tools tell of it.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Number, Value};

use crate::call::Call;

/// Between the two readings of which rates are made. The kernel counts CPU time in ticks of 10 ms.
const APART: Duration = Duration::from_millis(200);

/// What the readers of the machine are rooted at.
pub(crate) fn root() -> &'static Path {
    Path::new("/")
}

/// Reads something twice, a fifth of a second apart: counters since boot say little of now.
pub(crate) fn twice<T>(call: &Call<'_>, read: impl Fn() -> schedtrace_core::Result<T>) -> Result<(T, T), String> {
    let before = read().map_err(|why| why.to_string())?;
    call.pause(APART)?;
    Ok((before, read().map_err(|why| why.to_string())?))
}

/// The same as JSON, without digits that mean nothing: four behind the point, fewer of large numbers.
pub(crate) fn tidy(value: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    round(&mut value);
    value
}

fn round(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let exact = number.as_f64().unwrap_or_default();
            let places = if exact.abs() >= 100.0 { 1.0 } else { 10_000.0 };
            if let Some(rounded) = Number::from_f64((exact * places).round() / places) {
                *number = rounded;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(round),
        Value::Object(map) => map.values_mut().for_each(round),
        _ => {}
    }
}

/// A part of a whole, in words.
pub(crate) fn percent(ratio: f64) -> String {
    format!("{:.0}%", ratio * 100.0)
}

/// Bytes, in words.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.*} {}", usize::from(unit > 0), UNITS[unit])
}

/// `1 task`, `2 tasks`.
pub(crate) fn of(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_keep_the_digits_that_mean_something() {
        let told = tidy(&json!({ "a": 0.123_456, "b": [12_345.678], "c": 7, "d": u64::MAX }));
        assert_eq!(told, json!({ "a": 0.1235, "b": [12_346.0], "c": 7, "d": u64::MAX }));
        assert_eq!(percent(0.125), "12%");
        assert_eq!([bytes(12), bytes(1_536), bytes(u64::MAX)], ["12 bytes", "1.5 KiB", "16777216.0 TiB"]);
    }
}
