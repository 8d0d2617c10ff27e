//! Who connected to the server and who left it, from the server's own events. Only the hub may
//! hear them (system account, `$SYS.ACCOUNT.<account>.CONNECT` and `.DISCONNECT`).

use serde::Deserialize;

use super::identity::Identity;
use super::jwt;
use super::permission::Permission;

/// A user of this fleet came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerEvent {
    /// Which of both.
    pub kind: PeerEventKind,
    /// The machine, or the name of the person or program.
    pub name: String,
    /// What they may do.
    pub permission: Permission,
    /// The server's number of the connection: grows with each, starts anew with the server.
    pub connection: u64,
    /// The server's id, new at each of its starts.
    pub server: String,
    /// Address it came from.
    pub host: String,
    /// Why it ended, in the server's words: `Client Closed`, `Stale Connection`, `Read Error`…
    pub reason: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEventKind {
    /// Connected.
    Connected,
    /// Disconnected.
    Disconnected,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    server: RawServer,
    client: RawClient,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RawServer {
    id: String,
}

#[derive(Deserialize)]
struct RawClient {
    id: u64,
    #[serde(default)]
    host: String,
    jwt: String,
}

/// Whose a JWT is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUser {
    /// The machine, or the name of the person or program.
    pub name: String,
    /// What they may do.
    pub permission: Permission,
    /// Their public key.
    pub key: String,
}

impl Identity {
    /// Whose JWT this is; none where this identity has not signed it. The server has checked it when
    /// it let its bearer in.
    #[must_use]
    pub fn user_of(&self, jwt: &str) -> Option<PeerUser> {
        let subject = jwt::subject(jwt)?;
        Some(PeerUser {
            permission: self.permission_of(&subject.iss)?,
            name: subject.name,
            key: subject.sub,
        })
    }

    /// Reads an event of the server. `None` for what is no such event, or not about a user whose
    /// credentials this identity has signed.
    #[must_use]
    pub fn peer_event(&self, payload: &[u8]) -> Option<PeerEvent> {
        let raw: Raw = serde_json::from_slice(payload).ok()?;
        let kind = match raw.kind.as_str() {
            "io.nats.server.advisory.v1.client_connect" => PeerEventKind::Connected,
            "io.nats.server.advisory.v1.client_disconnect" => PeerEventKind::Disconnected,
            _ => return None,
        };
        let user = self.user_of(&raw.client.jwt)?;
        Some(PeerEvent {
            kind,
            permission: user.permission,
            name: user.name,
            connection: raw.client.id,
            server: raw.server.id,
            host: raw.client.host,
            reason: raw.reason,
        })
    }
}
