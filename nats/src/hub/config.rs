//! Renders nats-server's configuration. Pure: every number and path is an argument.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::identity::Trust;
use crate::home::Home;

/// Largest message: a job may carry 8 MiB of standard input as base64, and its envelope.
const MAX_PAYLOAD: u64 = 12 * 1024 * 1024;

/// What may wait for one slow client before the server drops it.
const MAX_PENDING: u64 = 64 * 1024 * 1024;

/// Messages, and bytes of them, that may wait to be written to one stream; more are refused. What one
/// peer sends too much is not what another waits behind for long.
const MAX_BUFFERED: (u64, u64) = (2048, 64 * 1024 * 1024);

/// Streams live on disk; this is for what consumers keep.
const MAX_MEMORY_STORE: u64 = 64 * 1024 * 1024;

/// Bounds of what all streams together may use.
const FILE_STORE_BOUNDS: (u64, u64) = (512 * 1024 * 1024, 1024 * 1024 * 1024 * 1024);

pub(crate) struct Settings<'a> {
    pub(crate) home: &'a Home,
    pub(crate) name: &'a str,
    pub(crate) listen: SocketAddr,
    pub(crate) monitor: SocketAddr,
    pub(crate) max_file_store: u64,
    pub(crate) trust: &'a Trust,
}

/// The text of `nats-server.conf`. Holds public keys only.
pub(crate) fn render(settings: &Settings<'_>) -> String {
    let Settings {
        home,
        name,
        listen,
        monitor,
        max_file_store,
        trust,
    } = settings;
    // The server makes `jetstream/` below the folder it is given.
    let (store, log, pid) = (
        path(&home.hub_dir()),
        path(&home.server_log()),
        path(&home.server_pid()),
    );
    let name = quote(name);
    let (buffered_messages, buffered_bytes) = MAX_BUFFERED;
    let mut text = format!(
        r#"# Written by fleet at every start of the hub; changes are lost.
server_name: {name}
listen: "{listen}"
http: "{monitor}"

jetstream {{
  store_dir: {store}
  max_file_store: {max_file_store}
  max_memory_store: {MAX_MEMORY_STORE}
  # Acknowledged means durable: without this an acknowledged job can be lost for two minutes.
  sync_interval: always
  max_buffered_msgs: {buffered_messages}
  max_buffered_size: {buffered_bytes}
}}

# A dead link is noticed within 15 s.
ping_interval: "5s"
ping_max: 2
write_deadline: "5s"
max_payload: {MAX_PAYLOAD}
max_pending: {MAX_PENDING}
lame_duck_duration: "30s"
lame_duck_grace_period: "2s"

log_file: {log}
logfile_size_limit: 16777216
logfile_max_num: 3
logtime_utc: true
pid_file: {pid}

operator: "{operator}"
system_account: {system}
resolver: MEMORY
resolver_preload: {{
"#,
        operator = trust.operator_jwt,
        system = trust.system_account,
    );
    for (key, jwt) in &trust.accounts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {key}: \"{jwt}\"");
    }
    text.push_str("}\n");
    text
}

/// Four fifths of what the store has and could get, within bounds.
pub(crate) fn default_file_store(free: u64, used: u64) -> u64 {
    let (least, most) = FILE_STORE_BOUNDS;
    (free.saturating_add(used) / 5 * 4).clamp(least, most)
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A string of the server's configuration language. It knows these escapes; a control character
/// cannot be in a path that a person chose, and would be refused by the server's parser.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_takes_four_fifths_within_bounds() {
        let gib = 1024 * 1024 * 1024;
        assert_eq!(default_file_store(90 * gib, 10 * gib), 100 * gib / 5 * 4);
        assert_eq!(default_file_store(0, 0), FILE_STORE_BOUNDS.0);
        assert_eq!(default_file_store(u64::MAX, 1), FILE_STORE_BOUNDS.1);
    }

    #[test]
    fn a_path_cannot_leave_its_quotes() {
        assert_eq!(quote(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
    }
}
