//! Checked frames for small files: length, CRC-32, payload. A torn or damaged tail is seen and
//! everything before it is still read.

use std::io::{self, Write};

/// Bytes before each payload.
pub(crate) const HEADER: usize = 8;

/// Appends one frame in a single write, so that a killed writer leaves at most one torn frame.
pub(crate) fn append(file: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a frame over 4 GiB"))?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    file.write_all(&frame)
}

/// The payloads of the whole frames at the start of `bytes`; what follows the first torn or
/// damaged one is left out.
pub(crate) fn split(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_at_checked(HEADER)?;
        let length = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
        let crc = u32::from_le_bytes(header[4..].try_into().ok()?);
        let (payload, after) = after.split_at_checked(length)?;
        if crc32fast::hash(payload) != crc {
            return None;
        }
        rest = after;
        Some(payload)
    })
    .fuse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_damaged_tail_leaves_what_is_before_it() {
        let mut bytes = Vec::new();
        for payload in [&b"one"[..], b"", b"three"] {
            append(&mut bytes, payload).unwrap();
        }
        assert_eq!(
            split(&bytes).collect::<Vec<_>>(),
            [&b"one"[..], b"", b"three"]
        );
        for cut in 19..bytes.len() {
            assert_eq!(split(&bytes[..cut]).count(), 2, "{cut}");
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(split(&bytes).count(), 2);
        assert_eq!(split(&[0xff; 64]).count(), 0);
    }
}
