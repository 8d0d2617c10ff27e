//! Asking a server whether it is ready, over its monitoring port: one HTTP request by hand, no
//! more than is needed for that.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one question may take.
const ASK_WITHIN: Duration = Duration::from_secs(2);

/// The longest answer that is read.
const MAX_ANSWER: u64 = 64 * 1024;

/// Whether clients are served and JetStream has loaded its streams.
pub(crate) async fn is_healthy(monitor: SocketAddr) -> bool {
    let ask = get(monitor, "/healthz?js-enabled-only=true");
    matches!(timeout(ASK_WITHIN, ask).await, Ok(Ok(200)))
}

/// What the server says is wrong with it: a stream that cannot be written to, say. None where it is
/// well, and where it does not answer at all: then it is gone, which is noticed otherwise.
pub(crate) async fn ailment(monitor: SocketAddr) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Health {
        error: Option<String>,
    }
    let answer = timeout(ASK_WITHIN, ask(monitor, "/healthz"))
        .await
        .ok()?
        .ok()?;
    let text = String::from_utf8_lossy(&answer);
    let (_, body) = text.split_once("\r\n\r\n")?;
    serde_json::from_str::<Health>(body).ok()?.error
}

/// The status of a GET.
async fn get(monitor: SocketAddr, path: &str) -> io::Result<u16> {
    let answer = ask(monitor, path).await?;
    let line = answer.split(|b| *b == b'\r').next().unwrap_or_default();
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| io::Error::other("no HTTP status"))
}

/// The whole answer to a GET.
async fn ask(monitor: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(monitor).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {monitor}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Waits until the server is healthy. It has no event for that, so it is asked again after pauses
/// that grow to 100 ms.
pub(crate) async fn until_healthy(monitor: SocketAddr) {
    let mut pause = Duration::from_millis(2);
    while !is_healthy(monitor).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
