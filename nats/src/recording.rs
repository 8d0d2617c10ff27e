//! Messages of the bus in a file, as they were stored, so that what one fleet did can be looked at
//! anywhere and read by the same code as the bus itself.
//!
//! A file is gzip of lines of JSON: the first names format and version, each other one is a message
//! of a stream. Reading is bounded, line by line, and never trusts a file.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use async_nats::HeaderMap;
use bytes::Bytes;
use data_encoding::BASE64;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use fleet_contract::time::Time;
use serde::{Deserialize, Serialize};

use crate::bus::{Stored, is_smuggled};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 1;
/// The longest line: a job with all its input fits.
pub const LINE_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Most messages of one file.
pub const MESSAGES_MAX: u64 = 10_000_000;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Another file.
    #[error("this is no recording of a fleet: {0}")]
    Foreign(String),
    /// One of a newer fleet.
    #[error("the recording has version {0}, this fleet reads up to {VERSION}: use a newer fleet")]
    Newer(u32),
    /// A line that is none.
    #[error("line {line} of the recording cannot be read: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// Why not.
        why: String,
    },
    /// It is cut off, or cannot be read at all.
    #[error("the recording ends in line {line}: {source}")]
    Broken {
        /// The line that was to be read.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// More than anybody would want.
    #[error("the recording has more than {MESSAGES_MAX} messages")]
    TooMany,
    /// It cannot be written.
    #[error("the recording cannot be written: {0}")]
    Unwritable(#[source] io::Error),
}

/// A message and the stream it is of.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The stream.
    pub stream: String,
    /// The message.
    pub message: Stored,
}

#[derive(Serialize, Deserialize)]
struct Head {
    fleet_recording: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    stream: String,
    seq: u64,
    /// In microseconds of Unix time, by the hub's clock.
    stored: i64,
    subject: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Vec<String>>,
    /// The payload where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The payload where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Line {
    fn of(stream: &str, message: &Stored) -> Self {
        let headers = message.headers.iter().map(|(name, values)| {
            let values = values.iter().map(|value| value.as_str().to_owned());
            (name.to_string(), values.collect())
        });
        let text = std::str::from_utf8(&message.payload).map(str::to_owned);
        Self {
            stream: stream.to_owned(),
            seq: message.seq,
            stored: message.time.as_micros(),
            subject: message.subject.clone(),
            headers: headers.collect(),
            base64: text.is_err().then(|| BASE64.encode(&message.payload)),
            text: text.ok(),
        }
    }

    fn recorded(self) -> Result<Recorded, String> {
        let payload = match (self.text, self.base64) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(coded)) => BASE64
                .decode(coded.as_bytes())
                .map_err(|e| format!("its base64: {e}"))?
                .into(),
            _ => return Err("it needs either text or base64".to_owned()),
        };
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers {
            for value in values {
                // A value with a line break would be another header.
                if name.contains(['\r', '\n', ':']) || value.contains(['\r', '\n']) {
                    return Err(format!("header {name:?} is none"));
                }
                headers.append(name.as_str(), value.as_str());
            }
        }
        Ok(Recorded {
            stream: self.stream,
            message: Stored {
                subject: self.subject,
                seq: self.seq,
                time: Time::from_micros(self.stored),
                smuggled: is_smuggled(&headers),
                headers,
                payload,
            },
        })
    }
}

/// Writes a recording.
pub struct Writer<W: Write> {
    out: GzEncoder<W>,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// `Unwritable`.
    pub fn begin(out: W) -> Result<Self, RecordingError> {
        let mut writer = Self {
            out: GzEncoder::new(out, Compression::best()),
        };
        writer.line(&Head {
            fleet_recording: VERSION,
        })?;
        Ok(writer)
    }

    /// Writes the next message.
    ///
    /// # Errors
    /// `Unwritable`.
    pub fn write(&mut self, stream: &str, message: &Stored) -> Result<(), RecordingError> {
        self.line(&Line::of(stream, message))
    }

    /// Ends it.
    ///
    /// # Errors
    /// `Unwritable`.
    pub fn end(self) -> Result<W, RecordingError> {
        self.out.finish().map_err(RecordingError::Unwritable)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), RecordingError> {
        let unwritable = RecordingError::Unwritable;
        serde_json::to_writer(&mut self.out, line).map_err(|e| unwritable(e.into()))?;
        self.out.write_all(b"\n").map_err(unwritable)
    }
}

/// Reads a recording, message by message; after an error nothing more.
pub struct Reader<R: Read> {
    lines: BufReader<MultiGzDecoder<R>>,
    line: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read one.
    ///
    /// # Errors
    /// `Foreign`, `Newer`.
    pub fn begin(source: R) -> Result<Self, RecordingError> {
        let mut reader = Self {
            lines: BufReader::new(MultiGzDecoder::new(source)),
            line: 0,
            ended: false,
        };
        let foreign = |why: &dyn std::fmt::Display| RecordingError::Foreign(why.to_string());
        let first = reader.next_line().map_err(|e| match e {
            RecordingError::Broken { source, .. } => foreign(&source),
            other => foreign(&other),
        })?;
        let first = first.ok_or_else(|| foreign(&"it is empty"))?;
        let head: Head = serde_json::from_slice(&first).map_err(|e| foreign(&e))?;
        if head.fleet_recording > VERSION {
            return Err(RecordingError::Newer(head.fleet_recording));
        }
        Ok(reader)
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, RecordingError> {
        self.line += 1;
        let line = self.line;
        let mut bytes = Vec::new();
        let mut limited = (&mut self.lines).take(LINE_MAX_BYTES + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        read.map_err(|source| RecordingError::Broken { line, source })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.last() != Some(&b'\n') {
            let why = if bytes.len() as u64 > LINE_MAX_BYTES {
                format!("it is longer than {LINE_MAX_BYTES} bytes")
            } else {
                "it is cut off".to_owned()
            };
            return Err(RecordingError::Line { line, why });
        }
        Ok(Some(bytes))
    }

    fn message(&mut self) -> Result<Option<Recorded>, RecordingError> {
        if self.line > MESSAGES_MAX {
            return Err(RecordingError::TooMany);
        }
        let Some(bytes) = self.next_line()? else {
            return Ok(None);
        };
        let wrong = |why: String| RecordingError::Line {
            line: self.line,
            why,
        };
        let line: Line = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
        line.recorded().map(Some).map_err(wrong)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Recorded, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.message().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64, payload: &'static [u8]) -> Stored {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "studio-1");
        Stored {
            subject: "fleet.flow.studio.machine.up".to_owned(),
            seq,
            time: Time::from_micros(1_769_861_071_000_001),
            headers,
            payload: payload.into(),
            smuggled: false,
        }
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new()).unwrap();
        writer.write("FLOW", &message(7, b"{\"v\":1}\n")).unwrap();
        writer.write("JOB", &message(8, b"\xff\xfe\0")).unwrap();
        writer.end().unwrap()
    }

    fn zipped(text: &str) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    fn error(bytes: &[u8]) -> RecordingError {
        match Reader::begin(bytes) {
            Err(error) => error,
            Ok(reader) => reader.filter_map(Result::err).next().unwrap(),
        }
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let bytes = written();
        let back: Vec<Recorded> = Reader::begin(&bytes[..])
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(back.len(), 2);
        for (back, (stream, seq, payload)) in back
            .iter()
            .zip([("FLOW", 7, &b"{\"v\":1}\n"[..]), ("JOB", 8, b"\xff\xfe\0")])
        {
            let message = &back.message;
            assert_eq!((back.stream.as_str(), message.seq), (stream, seq));
            assert_eq!(message.payload, payload);
            assert_eq!(message.time.as_micros(), 1_769_861_071_000_001);
            assert_eq!(
                message.headers.get("Nats-Msg-Id").unwrap().as_str(),
                "studio-1"
            );
            assert!(!message.smuggled);
        }
    }

    #[test]
    fn other_files_newer_ones_and_broken_ones_are_told_apart() {
        for foreign in [
            &b""[..],
            b"hello",
            b"\x1f\x8b\x08",
            &zipped(""),
            &zipped("{}\n"),
        ] {
            assert!(matches!(error(foreign), RecordingError::Foreign(_)));
        }
        let newer = zipped("{\"fleet_recording\":2}\n");
        assert!(matches!(error(&newer), RecordingError::Newer(2)));
        let bytes = written();
        let cut = &bytes[..bytes.len() - 20];
        assert!(matches!(error(cut), RecordingError::Broken { .. }));
        let head = "{\"fleet_recording\":1}\n";
        for line in [
            "{\n",
            "{}\n",
            "{\"stream\":\"JOB\",\"seq\":1,\"stored\":1,\"subject\":\"a\"}\n",
            "{\"stream\":\"JOB\",\"seq\":1,\"stored\":1,\"subject\":\"a\",\"base64\":\"!\"}\n",
            "{\"stream\":\"JOB\",\"seq\":1,\"stored\":1,\"subject\":\"a\",\"text\":\"cut off",
            "{\"stream\":\"JOB\",\"seq\":1,\"stored\":1,\"subject\":\"a\",\"text\":\"\",\
             \"headers\":{\"a\":[\"b\\r\\nc\"]}}\n",
        ] {
            let found = error(&zipped(&format!("{head}{line}")));
            assert!(
                matches!(found, RecordingError::Line { line: 2, .. }),
                "{line}: {found}"
            );
        }
    }

    #[test]
    fn a_line_without_an_end_is_no_reason_to_fill_the_memory() {
        let long = " ".repeat(usize::try_from(LINE_MAX_BYTES).unwrap() * 2);
        let found = error(&zipped(&format!("{{\"fleet_recording\":1}}\n{long}")));
        assert!(found.to_string().contains("longer than"), "{found}");
    }
}
