//! Sizes as they are typed and as they stand in a canonical form. Pure.

/// Units of a power of two, the largest first.
const UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Why a text is no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSize {
    /// A number without a unit.
    Unit,
    /// Anything else.
    Words,
}

/// Bytes of a unit as people write it: `B`, `K` and `KiB` (1024) to `P` and `PiB`, `kB` (1000) to
/// `PB`, whatever its case; none for anything else.
#[must_use]
pub fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return None,
    })
}

/// Bytes of `16GiB`, `1.5 GiB`, `512M`, `24GB`; a unit is not left out, since nobody would guess
/// the same one.
pub(super) fn parse(text: &str) -> Result<u64, NoSize> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if unit.trim().is_empty() && !number.is_empty() {
        return Err(NoSize::Unit);
    }
    let unit = unit_bytes(unit).ok_or(NoSize::Words)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| s.len() <= 15 && s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || number.ends_with('.') {
        return Err(NoSize::Words);
    }
    let whole: u64 = whole.parse().map_err(|_| NoSize::Words)?;
    let mut bytes = whole.checked_mul(unit).ok_or(NoSize::Words)?;
    if !part.is_empty() {
        let scale = 10_u128.pow(u32::try_from(part.len()).map_err(|_| NoSize::Words)?);
        let part: u128 = part.parse().map_err(|_| NoSize::Words)?;
        let part = u64::try_from(part * u128::from(unit) / scale).map_err(|_| NoSize::Words)?;
        bytes = bytes.checked_add(part).ok_or(NoSize::Words)?;
    }
    Ok(bytes)
}

/// The size in the largest unit that it is a whole number of.
#[must_use]
pub fn exact(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    let (name, unit) = unit.copied().unwrap_or(("B", 1));
    match bytes {
        0 => "0B".to_owned(),
        _ => format!("{}{name}", bytes / unit),
    }
}

/// The size for people, to a tenth of its largest unit: `15.5 GiB`.
#[must_use]
pub fn rounded(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, unit)| bytes >= *unit);
    let (name, unit) = unit.copied().unwrap_or(("B", 1));
    let (whole, tenths) = (
        bytes / unit,
        u128::from(bytes % unit) * 10 / u128::from(unit),
    );
    match tenths {
        0 => format!("{whole} {name}"),
        _ => format!("{whole}.{tenths} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, written) in [
            ("16GiB", 16 << 30, "16GiB"),
            ("16g", 16 << 30, "16GiB"),
            ("16384 MiB", 16 << 30, "16GiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("24GB", 24_000_000_000, "23437500KiB"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(exact(bytes), written);
            assert_eq!(parse(written), Ok(bytes));
        }
        assert_eq!(parse("16"), Err(NoSize::Unit));
        for bad in [
            "",
            "GiB",
            "-1GiB",
            "1.GiB",
            ".5GiB",
            "1..5GiB",
            "9999999999TiB",
            "1 horse",
        ] {
            assert_eq!(parse(bad), Err(NoSize::Words), "{bad}");
        }
        assert_eq!(rounded(16 << 30), "16 GiB");
        assert_eq!(rounded(25_276_510_208), "23.5 GiB");
        assert_eq!(rounded(7), "7 B");
    }
}
