//! JSON without its white space, and otherwise byte for byte: the order of
//! keys, the digits of numbers and the escapes in strings stay as they were.

use serde::de::IgnoredAny;

/// Takes the white space out of a JSON text. Says line and column if it is none.
pub(crate) fn compact(text: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text)?;
    Ok(strip(text.as_bytes()))
}

/// Takes out what lies between the tokens of a valid JSON text.
fn strip(json: &[u8]) -> Vec<u8> {
    let (mut out, mut in_string, mut escaped) = (Vec::with_capacity(json.len()), false, false);
    for &byte in json {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_white_space_is_kept() {
        let text = " { \"b\" : 1 ,\n\t\"a\":1.10, \"n\":12345678901234567890, \"e\":1E+05, \"b\":2,\r\n \"s p\":\" x \\\" \\\\\" , \"u\":\"\\u00e9 é\" } ";
        let kept = "{\"b\":1,\"a\":1.10,\"n\":12345678901234567890,\"e\":1E+05,\"b\":2,\"s p\":\" x \\\" \\\\\",\"u\":\"\\u00e9 é\"}";
        assert_eq!(compact(text).unwrap(), kept.as_bytes());
        assert_eq!(compact(kept).unwrap(), kept.as_bytes());
    }

    #[test]
    fn scalars_are_json_too() {
        for text in ["null", "true", "-0.0", "\"\"", "[]", "{}"] {
            assert_eq!(compact(text).unwrap(), text.as_bytes());
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(compact(&deep).unwrap(), deep.as_bytes());
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for text in ["", "{", "{\"a\":}", "[1,]", "01", "nul", "{} {}", "{'a':1}"] {
            assert!(compact(text).is_err(), "{text:?}");
        }
        assert!(
            compact("{\n  \"a\" 1}")
                .unwrap_err()
                .to_string()
                .contains("line 2 column")
        );
    }
}
