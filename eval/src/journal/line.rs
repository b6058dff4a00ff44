//! One line of a journal: a JSON object whose first member is a checksum of the rest.

use sha2::{Digest, Sha256};

/// Every line starts with this, which tells a journal from any other file.
pub(super) const START: &str = r#"{"sum":""#;
const SUM_LEN: usize = 16;

/// The line (without its end) of the JSON object `body`; `seed` is the header's sum, or empty for the header.
pub(super) fn seal(seed: &str, body: &str) -> String {
    let members = body.strip_prefix('{').unwrap_or(body);
    format!("{START}{}\",{members}", sum(seed, members))
}

/// Checks a line: its sum, and the JSON object without it; or why it is damaged.
pub(super) fn open<'a>(seed: &str, line: &'a [u8]) -> Result<(&'a str, String), &'static str> {
    let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
    let rest = text
        .strip_prefix(START)
        .ok_or("does not start with a checksum")?;
    let found = rest.get(..SUM_LEN).ok_or("has no whole checksum")?;
    let members = rest[SUM_LEN..]
        .strip_prefix("\",")
        .ok_or("has no whole checksum")?;
    if sum(seed, members) != found {
        return Err("does not match its checksum");
    }
    Ok((found, format!("{{{members}")))
}

fn sum(seed: &str, members: &str) -> String {
    let digest = Sha256::new()
        .chain_update(seed)
        .chain_update(members)
        .finalize();
    digest[..SUM_LEN / 2]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_lines_open_and_damaged_ones_do_not() {
        let body = r#"{"batch":{"é":1.5}}"#;
        let line = seal("seed", body);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
        assert_eq!(open("seed", line.as_bytes()).unwrap().1, body);
        assert!(open("other seed", line.as_bytes()).is_err());
        for at in 0..line.len() {
            let mut damaged = line.clone().into_bytes();
            damaged[at] ^= 1;
            assert!(open("seed", &damaged).is_err(), "byte {at} may change");
            assert!(
                open("seed", &line.as_bytes()[..at]).is_err(),
                "may end at {at}"
            );
        }
    }
}
