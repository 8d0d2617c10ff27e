//! Asks a server on this very machine one thing. Speaks just enough HTTP for that; other machines are
//! not asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most bytes of an answer.
const ANSWER_MAX_BYTES: usize = 256 * 1024;

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    at: SocketAddr,
    /// What stands before every path.
    base: String,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody listens there.
    Nobody,
    /// Somebody does, but has nothing under this path.
    NotThere,
    /// Not in time.
    Silent,
    /// What came is no answer.
    Garbage(String),
}

impl Address {
    /// `http://127.0.0.1:11434`, `localhost:1234`, `:1234`, `[::1]:1234`; what listens everywhere does
    /// so here, too. None for any other machine's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.trim();
        let rest = rest.strip_prefix("http://").unwrap_or(rest);
        if rest.contains("://") {
            return None;
        }
        let (authority, base) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()?),
            _ => (authority, 11_434),
        };
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => match host.parse::<IpAddr>().ok()? {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            },
        };
        let base = base.trim_end_matches('/');
        let clean = base.bytes().all(|b| b.is_ascii_graphic());
        (ip.is_loopback() && clean && base.len() < 200).then(|| Self {
            at: SocketAddr::new(ip, port),
            base: match base {
                "" => String::new(),
                base => format!("/{base}"),
            },
        })
    }

    /// The body of what is under this path.
    pub(super) async fn get(&self, path: &str, within: Duration) -> Result<Vec<u8>, NoAnswer> {
        let asked = tokio::time::timeout(within, self.ask(path)).await;
        asked.unwrap_or(Err(NoAnswer::Silent))
    }

    async fn ask(&self, path: &str) -> Result<Vec<u8>, NoAnswer> {
        let garbage = |e: std::io::Error| NoAnswer::Garbage(e.to_string());
        let mut stream = match TcpStream::connect(self.at).await {
            Ok(stream) => stream,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(NoAnswer::Nobody);
            }
            Err(error) => return Err(garbage(error)),
        };
        // Of this version nobody answers in chunks.
        let request = format!(
            "GET {}{path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\n\r\n",
            self.base, self.at
        );
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(garbage)?;
        let mut answer = Vec::new();
        let mut bounded = stream.take(ANSWER_MAX_BYTES as u64 + 1);
        loop {
            match bounded.read_buf(&mut answer).await {
                Ok(0) => break,
                Ok(_) if is_whole(&answer) => break,
                Ok(_) => {}
                Err(error) => return Err(garbage(error)),
            }
        }
        if answer.len() > ANSWER_MAX_BYTES {
            return Err(NoAnswer::Garbage("an answer without end".to_owned()));
        }
        body(&answer)
    }
}

/// Where the body begins, and the lines before it.
fn head(answer: &[u8]) -> Option<(usize, &str)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    Some((end + 4, std::str::from_utf8(&answer[..end]).ok()?))
}

/// Whether as much is there as the answer says it has: some servers keep the connection.
fn is_whole(answer: &[u8]) -> bool {
    let Some((begin, head)) = head(answer) else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is = name.eq_ignore_ascii_case("content-length");
        is.then(|| value.trim().parse::<usize>().ok())?
    });
    length.is_some_and(|length| answer.len() - begin >= length)
}

fn body(answer: &[u8]) -> Result<Vec<u8>, NoAnswer> {
    let garbage = || NoAnswer::Garbage("what answers there speaks no HTTP".to_owned());
    let (begin, head) = head(answer).ok_or_else(garbage)?;
    let mut words = head.split_whitespace();
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status: u16 = words
        .next()
        .and_then(|w| w.parse().ok())
        .ok_or_else(garbage)?;
    match status {
        _ if !http => Err(garbage()),
        200 => Ok(answer[begin..].to_vec()),
        404 => Err(NoAnswer::NotThere),
        status => Err(NoAnswer::Garbage(format!(
            "it answers with status {status}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        for (text, at) in [
            ("http://127.0.0.1:11434", Some("127.0.0.1:11434")),
            ("http://localhost:1234/", Some("127.0.0.1:1234")),
            ("0.0.0.0:99", Some("127.0.0.1:99")),
            (":99", Some("127.0.0.1:99")),
            ("[::1]:99", Some("[::1]:99")),
            ("127.0.0.1", Some("127.0.0.1:11434")),
            ("http://127.0.0.1:99/ollama", Some("127.0.0.1:99")),
            ("http://studio:11434", None),
            ("10.0.0.7:99", None),
            ("https://127.0.0.1:99", None),
            ("127.0.0.1:x", None),
            ("http://127.0.0.1:1/a b", None),
        ] {
            let found = Address::parse(text).map(|address| address.at.to_string());
            assert_eq!(found.as_deref(), at, "{text}");
        }
    }

    #[test]
    fn an_answer_is_taken_apart() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(is_whole(ok) && !is_whole(&ok[..ok.len() - 1]));
        assert_eq!(body(ok), Ok(b"{}".to_vec()));
        assert_eq!(
            body(b"HTTP/1.0 404 Not Found\r\n\r\n"),
            Err(NoAnswer::NotThere)
        );
        for garbage in [
            &b""[..],
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 x\r\n\r\n",
            b"\xff\xff\r\n\r\n",
        ] {
            assert!(matches!(body(garbage), Err(NoAnswer::Garbage(_))));
        }
        let status = body(b"HTTP/1.1 500 Oops\r\n\r\n").unwrap_err();
        assert_eq!(
            status,
            NoAnswer::Garbage("it answers with status 500".to_owned())
        );
    }
}
