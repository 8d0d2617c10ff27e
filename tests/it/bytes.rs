//! Bytes in, bytes out: whatever a job reads and writes arrives as it was, in order, all of it.

use std::io::Read;
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::fleet::{Gate, only_attempt, together};
use crate::harness::{Fleet, Running};

/// Bytes that nothing could have made up, the same at every call.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Hashes what a command writes, as it comes through a pipe; how much it was.
fn hash_of(command: &mut Command) -> (Vec<u8>, u64) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let (mut hash, mut count) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = out.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        count += n as u64;
    }
    assert!(child.wait().unwrap().success());
    (hash.finalize().to_vec(), count)
}

#[test]
fn a_hundred_megabytes_arrive_as_they_were() {
    const SIZE: usize = 100_000_000;
    let fleet = Fleet::up("studio", 1);
    let gate = Gate::new();
    let blob = noise(SIZE);
    std::fs::write(gate.file("blob"), &blob).unwrap();
    let expected = (Sha256::digest(&blob).to_vec(), SIZE as u64);
    drop(blob);
    let file = gate.file("blob");
    let words = ["dispatch", "--follow", "--", "cat", file.to_str().unwrap()];
    // While it is written, then again from the hub.
    assert!(hash_of(&mut fleet.home.command(&words)) == expected);
    let jobs = fleet.json(&["jobs"]);
    let id = jobs[0]["id"].as_str().unwrap();
    let output = &only_attempt(&jobs[0])["output"];
    assert_eq!(output["stdout"]["bytes"], SIZE);
    assert_eq!(output["stdout"]["dropped"], serde_json::Value::Null);
    assert!(hash_of(&mut fleet.home.command(&["logs", "--raw", id])) == expected);
    // The shell's pipe, which holds less than a chunk at a time.
    let piped = format!("\"{}\" logs {id} | cat", env!("CARGO_BIN_EXE_fleet"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &piped]).env_clear();
    for (name, value) in fleet.home.command::<&str>(&[]).get_envs() {
        shell.env(name, value.unwrap());
    }
    assert!(hash_of(&mut shell) == expected);
}

#[test]
fn every_byte_passes_on_both_streams() {
    let fleet = Fleet::up("studio", 1);
    let gate = Gate::new();
    let every: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (out, err) = (
        [&every[..], b"\xff\xfe\0\r\n\x1b[31m"].concat(),
        &every[7..],
    );
    std::fs::write(gate.file("out"), &out).unwrap();
    std::fs::write(gate.file("err"), err).unwrap();
    let script = format!(
        "cat {}; cat {} >&2",
        gate.file("out").display(),
        gate.file("err").display()
    );
    let id = fleet.dispatch(&["--shell", "--", &script]);
    fleet.run(&["wait", &id]).ok();
    for words in [
        &["logs", &id][..],
        &["logs", "--raw", &id],
        &["logs", "-f", &id],
    ] {
        let ran = fleet.home.command(words).output().unwrap();
        assert!(ran.status.success());
        assert!(ran.stdout == out, "{words:?}: {} bytes", ran.stdout.len());
        assert!(ran.stderr == err, "{words:?}: {} bytes", ran.stderr.len());
    }
    let (_, chunks) = fleet.home.json_lines(&["logs", &id]);
    let mut offset = [0, 0];
    for (at, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk["seq"], at + 1, "{chunk}");
        let bytes = match chunk["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => data_encoding::BASE64
                .decode(chunk["base64"].as_str().unwrap().as_bytes())
                .unwrap(),
        };
        let stream = usize::from(chunk["stream"] == "stderr");
        let whole = if stream == 0 { &out[..] } else { err };
        assert!(whole[offset[stream]..].starts_with(&bytes), "chunk {at}");
        offset[stream] += bytes.len();
    }
    assert_eq!(offset, [out.len(), err.len()]);
}

#[test]
fn both_streams_stay_in_the_order_in_which_they_were_written() {
    let fleet = Fleet::up("studio", 1);
    let gate = Gate::new();
    // Each line is written only when the one before has been seen, so that their order is certain.
    let script: String = (0..8)
        .map(|at| {
            let stream = 1 + at % 2;
            format!(
                "echo line {at} >&{stream}; {}; ",
                gate.wait(&at.to_string())
            )
        })
        .collect();
    let id = fleet.dispatch(&["--shell", "--", &script]);
    let words = ["--json", "logs", "-f", &id];
    let mut follower = Running::start(fleet.home.command(&words));
    for at in 0..8 {
        let chunk = follower.json_line();
        assert_eq!(chunk["text"], format!("line {at}\n"));
        assert_eq!(chunk["stream"], ["stdout", "stderr"][at % 2]);
        gate.open(&at.to_string());
    }
    assert_eq!(follower.ended(), 0, "it ends with the job");
    let (_, chunks) = fleet.home.json_lines(&["logs", &id]);
    let texts: Vec<&str> = chunks.iter().filter_map(|c| c["text"].as_str()).collect();
    let lines: Vec<String> = (0..8).map(|at| format!("line {at}\n")).collect();
    assert_eq!(texts, lines);
}

#[test]
fn following_a_short_job_shows_all_of_it() {
    let fleet = Fleet::up("studio", 4);
    let script = "echo first; echo second >&2; printf last";
    let words = ["dispatch", "--follow", "--shell", "--", script];
    for _ in 0..5 {
        for ran in together((0..4).map(|_| fleet.home.command(&words)).collect()) {
            assert_eq!(ran.ok(), "first\nlast", "{ran:?}");
            assert!(ran.err.contains("second\n"), "{ran:?}");
        }
    }
}

#[test]
fn eight_mebibytes_go_in_and_come_out() {
    let fleet = Fleet::up("studio", 1);
    let bytes = noise(8 * 1024 * 1024);
    let words = ["dispatch", "--follow", "--stdin", "-", "--", "cat"];
    let ran = fleet.home.run_with(&words, &bytes);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.bytes.len(), bytes.len());
    assert!(Sha256::digest(&ran.bytes) == Sha256::digest(&bytes));
    // It is in the journal and in the ticket, and in nobody's way when jobs are looked at.
    let id = fleet.json(&["jobs"])[0]["id"].as_str().unwrap().to_owned();
    assert!(fleet.run(&["--json", "show", &id]).bytes.len() < 10_000);
    assert!(fleet.run(&["--json", "flow"]).bytes.len() < 100_000);
}
