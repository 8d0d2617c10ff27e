//! The bytes of a segment: records with length, checksum and place, and how they are found again in
//! bytes that a crash has torn or a disk has damaged. Pure: names no file and no clock.
//!
//! A record begins with 32 bytes: magic, length of what follows, CRC-32 of everything behind itself,
//! kind, index, time. An index is the record's place in the spool, one more than the last one's.

use fleet_contract::time::Time;

/// Bytes before each record's body.
pub(crate) const HEADER: usize = 32;
/// Most bytes of a body: an event of the largest size, and what is kept beside it.
pub(crate) const BODY_MAX: usize = fleet_contract::envelope::MESSAGE_MAX_BYTES + 1024;
/// No index comes near it: a record that claims one is none.
pub(crate) const INDEX_MAX: u64 = 1 << 62;

const MAGIC: &[u8; 4] = b"FSR1";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An event, for the hub.
    Event,
    /// Everything up to its index has been delivered.
    Delivered,
}

/// A whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    pub(crate) index: u64,
    pub(crate) time: Time,
    pub(crate) body: &'a [u8],
}

impl Record<'_> {
    /// Bytes it takes.
    pub(crate) fn length(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// What lies at a place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A record, and where it begins.
    Record(usize, Record<'a>),
    /// Bytes that are no record, from here, so many; a whole record follows.
    Damage(usize, usize),
    /// Bytes that are no record up to the end: torn, where nothing was written after them.
    Tail(usize),
}

/// The record as bytes; none where its body is over [`BODY_MAX`].
pub(crate) fn encode(record: &Record<'_>) -> Option<Vec<u8>> {
    if record.body.len() > BODY_MAX || record.index >= INDEX_MAX {
        return None;
    }
    let length = u32::try_from(record.body.len()).ok()?;
    let mut bytes = Vec::with_capacity(record.length());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let kind = match record.kind {
        Kind::Event => 1,
        Kind::Delivered => 2,
    };
    bytes.extend_from_slice(&[kind, 0, 0, 0]);
    bytes.extend_from_slice(&record.index.to_le_bytes());
    bytes.extend_from_slice(&record.time.as_micros().to_le_bytes());
    bytes.extend_from_slice(record.body);
    let crc = checksum(&bytes);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// Of everything but the magic and the checksum itself.
fn checksum(record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&record[4..8]);
    crc.update(&record[12..]);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.first_chunk()?;
    Some(u32::from_le_bytes(*four))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?.first_chunk()?;
    Some(u64::from_le_bytes(*eight))
}

/// The whole record that begins with these bytes.
pub(crate) fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let header = bytes.get(..HEADER)?;
    let kind = match header[12..16] {
        [1, 0, 0, 0] => Kind::Event,
        [2, 0, 0, 0] => Kind::Delivered,
        _ => return None,
    };
    let length = u32_at(header, 4)? as usize;
    if &header[..4] != MAGIC || length > BODY_MAX {
        return None;
    }
    let whole = bytes.get(..HEADER + length)?;
    let index = u64_at(header, 16)?;
    if u32_at(header, 8)? != checksum(whole) || index >= INDEX_MAX {
        return None;
    }
    Some(Record {
        kind,
        index,
        time: Time::from_micros(u64_at(header, 24)?.cast_signed()),
        body: &whole[HEADER..],
    })
}

/// Everything in a segment, or in the rest of one, in order.
pub(crate) fn scan(bytes: &[u8]) -> impl Iterator<Item = Found<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= bytes.len() {
            return None;
        }
        if let Some(record) = decode(&bytes[at..]) {
            let here = at;
            at += record.length();
            return Some(Found::Record(here, record));
        }
        let here = at;
        let next = (at + 1..bytes.len()).find(|&next| decode(&bytes[next..]).is_some());
        at = next.unwrap_or(bytes.len());
        Some(match next {
            Some(next) => Found::Damage(here, next - here),
            None => Found::Tail(here),
        })
    })
}

/// An event as it lies in a record: whose run and count it is, what happened, its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) boot: &'a str,
    pub(crate) seq: u64,
    pub(crate) kind: &'a str,
    pub(crate) envelope: &'a [u8],
}

impl<'a> Event<'a> {
    /// The body of its record; none where a name is over 255 bytes.
    pub(crate) fn to_body(&self) -> Option<Vec<u8>> {
        let mut body = Vec::with_capacity(self.envelope.len() + 64);
        body.push(u8::try_from(self.boot.len()).ok()?);
        body.extend_from_slice(self.boot.as_bytes());
        body.extend_from_slice(&self.seq.to_le_bytes());
        body.push(u8::try_from(self.kind.len()).ok()?);
        body.extend_from_slice(self.kind.as_bytes());
        body.extend_from_slice(self.envelope);
        Some(body)
    }

    /// The event in a record's body.
    pub(crate) fn of_body(body: &'a [u8]) -> Option<Self> {
        let (boot, rest) = text(body)?;
        let seq = u64_at(rest, 0)?;
        let (kind, envelope) = text(&rest[8..])?;
        Some(Self {
            boot,
            seq,
            kind,
            envelope,
        })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}
