//! One stream between server and file, by the server's snapshots: in pieces, each of which is
//! confirmed, so that neither side holds more than a few.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{BackupError, CHUNK, FileSum, Progress, StreamCopy, TELL_EVERY, file, hex};
use crate::bus::{Bus, BusError};

/// How long the server may take for a piece: it checks every message first.
const PIECE_WITHIN: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct State {
    messages: u64,
    first_seq: u64,
    last_seq: u64,
}

pub(super) fn failed(stream: &str) -> impl Fn(String) -> BackupError + use<> {
    let stream = stream.to_owned();
    move |why| BackupError::Stream {
        stream: stream.clone(),
        why,
    }
}

/// Copies a stream into a new file.
pub(super) async fn fetch(
    bus: &Bus,
    stream: &str,
    path: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<(StreamCopy, FileSum), BackupError> {
    let failed = failed(stream);
    let client = bus.client();
    let inbox = client.new_inbox();
    let closed = |e: &dyn std::fmt::Display| BusError::Closed(e.to_string());
    let mut pieces = client
        .subscribe(inbox.clone())
        .await
        .map_err(|e| closed(&e))?;
    let body = json!({ "deliver_subject": inbox, "chunk_size": CHUNK, "jsck": true });
    let answer = bus
        .ask(
            &format!("$JS.API.STREAM.SNAPSHOT.{stream}"),
            body.to_string().into(),
            async_nats::HeaderMap::new(),
            PIECE_WITHIN,
        )
        .await?;
    let mut answer: Value =
        serde_json::from_slice(&answer.payload).map_err(|e| failed(e.to_string()))?;
    if let Some(error) = answer["error"]["description"].as_str() {
        return Err(failed(format!("it cannot be copied: {error}")));
    }
    let (config, state) = (answer["config"].take(), answer["state"].take());
    let counts: State = serde_json::from_value(state.clone()).map_err(|e| failed(e.to_string()))?;
    let mut out = crate::files::create_private(path).map_err(file("write", path))?;
    let (mut hash, mut bytes, mut told) = (Sha256::new(), 0_u64, 0);
    loop {
        let piece = tokio::time::timeout(PIECE_WITHIN, pieces.next()).await;
        let Ok(Some(piece)) = piece else {
            return Err(failed("the server stopped in the middle of it".to_owned()));
        };
        if piece.payload.is_empty() {
            // 204, or nothing, ends it.
            match piece.status.filter(|status| status.as_u16() >= 300) {
                None => break,
                Some(status) => {
                    let why = piece.description.map_or(String::new(), |d| format!(" {d}"));
                    return Err(failed(format!("it cannot be copied: {status}{why}")));
                }
            }
        }
        hash.update(&piece.payload);
        out.write_all(&piece.payload).map_err(file("write", path))?;
        bytes += u64::try_from(piece.payload.len()).unwrap_or(0);
        if bytes - told >= TELL_EVERY {
            told = bytes;
            tell(Progress::Stream { stream, bytes });
        }
        if let Some(reply) = piece.reply {
            bus.tell(&reply, Bytes::new()).await?;
        }
    }
    out.sync_all().map_err(file("write", path))?;
    tell(Progress::Stream { stream, bytes });
    let copy = StreamCopy {
        messages: counts.messages,
        first_seq: counts.first_seq,
        last_seq: counts.last_seq,
        config,
        state,
    };
    let sha256 = hex(&hash.finalize());
    Ok((copy, FileSum { bytes, sha256 }))
}

/// Makes a stream of a file.
pub(super) async fn put(
    bus: &Bus,
    stream: &str,
    copy: &StreamCopy,
    path: &Path,
    tell: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<(), BackupError> {
    #[derive(Deserialize)]
    struct Begun {
        deliver_subject: String,
    }
    let failed = failed(stream);
    let body = json!({ "config": copy.config, "state": copy.state }).to_string();
    let begun: Begun = bus
        .api(&format!("STREAM.RESTORE.{stream}"), body.into())
        .await?;
    let mut source = std::fs::File::open(path).map_err(file("read", path))?;
    let mut buffer = vec![0; CHUNK];
    let (mut bytes, mut told) = (0_u64, 0);
    loop {
        let n = source.read(&mut buffer).map_err(file("read", path))?;
        let piece = Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default());
        let answer = bus
            .ask(
                &begun.deliver_subject,
                piece,
                async_nats::HeaderMap::new(),
                PIECE_WITHIN,
            )
            .await?;
        if !answer.payload.is_empty() {
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            if let Some(error) = answer["error"]["description"].as_str() {
                return Err(failed(format!("it cannot be put back: {error}")));
            }
        }
        if n == 0 {
            tell(Progress::Stream { stream, bytes });
            return Ok(());
        }
        bytes += u64::try_from(n).unwrap_or(0);
        if bytes - told >= TELL_EVERY {
            told = bytes;
            tell(Progress::Stream { stream, bytes });
        }
    }
}
