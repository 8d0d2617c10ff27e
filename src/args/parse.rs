//! Values of flags. Pure; every error says what would be right.

use std::net::SocketAddr;
use std::time::Duration;

use fleet_contract::ids::MachineId;
use fleet_contract::record::StateWord;
use fleet_contract::spec::Prefer;

use crate::words;

/// Most slots one machine can have.
pub(crate) const SLOTS_MAX: u32 = 4096;

/// A machine's id.
pub(crate) fn machine(text: &str) -> Result<MachineId, String> {
    text.parse().map_err(|e| format!("{e}"))
}

/// A span of time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    words::parse_duration(text)
}

/// The exit code of something that failed.
pub(crate) fn exit_code(text: &str) -> Result<u8, String> {
    match text.trim().parse() {
        Ok(code) if code > 0 => Ok(code),
        _ => Err(format!(
            "{text:?} is no exit code of a failure: use 1 to 255"
        )),
    }
}

/// A number of slots.
pub(crate) fn slots(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if (1..=SLOTS_MAX).contains(&n) => Ok(n),
        _ => Err(format!(
            "{text:?} is no number of slots: use 1 to {SLOTS_MAX}"
        )),
    }
}

/// `K=V` with a key.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!(
            "{text:?} has no NAME before '=': write it like NAME=VALUE"
        )),
    }
}

/// A machine, or a label.
pub(crate) fn prefer(text: &str) -> Result<Prefer, String> {
    text.parse()
        .map_err(|e| format!("{e}; or give a label as NAME=VALUE"))
}

/// A job's state by its word.
pub(crate) fn state(text: &str) -> Result<StateWord, String> {
    StateWord::from_word(text).ok_or_else(|| {
        let all = StateWord::ALL.map(StateWord::as_str);
        format!("{text:?} is no state: use {}", all.join(", "))
    })
}

/// An address to listen on: `ADDR:PORT`, an address alone (port 4222), or a port alone (loopback).
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    const PORT: u16 = 4222;
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
        return Ok(SocketAddr::new(ip, PORT));
    }
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    match text.trim_start_matches(':').parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(loopback, port)),
        Err(_) => Err(format!(
            "{text:?} is no address to listen on: write it like 127.0.0.1:4222 or 0.0.0.0:4222"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_need_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("=b").is_err());
        assert!(pair("a").is_err());
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, expected) in [
            ("0.0.0.0:4333", "0.0.0.0:4333"),
            ("192.168.1.2", "192.168.1.2:4222"),
            ("[::1]", "[::1]:4222"),
            ("4333", "127.0.0.1:4333"),
            (":0", "127.0.0.1:0"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "studio:4222", "1.2.3.4:99999", "x"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn states_and_slots_say_what_is_right() {
        assert_eq!(state("timed_out"), Ok(StateWord::TimedOut));
        assert!(state("done").unwrap_err().contains("succeeded"));
        assert_eq!(slots("8"), Ok(8));
        for bad in ["0", "-1", "many", "5000"] {
            assert!(slots(bad).unwrap_err().contains("use 1 to 4096"), "{bad}");
        }
    }
}
