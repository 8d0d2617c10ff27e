//! The documents keep up with the program: every command and flag that help shows is in
//! `docs/cli.md`, every link between the documents leads somewhere.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that does not get what it needs fails there and then"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

fn help(words: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_fleet"))
        .args(words)
        .arg("--help")
        .output()
        .unwrap();
    assert!(out.status.success(), "fleet {words:?} --help");
    String::from_utf8(out.stdout).unwrap()
}

/// The names under `Commands:` of a help text.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The long flags that begin a line of a help text.
fn flags(help: &str) -> Vec<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split([' ', '.']).find(|word| word.starts_with("--")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_and_flag_is_documented() {
    let document = read(&root().join("docs/cli.md"));
    let mut seen = 0;
    let mut check = |path: &[&str], help: &str| {
        for flag in flags(help) {
            seen += 1;
            assert!(document.contains(&flag), "fleet {path:?} {flag}");
        }
    };
    let top = help(&[]);
    check(&[], &top);
    for command in commands(&top) {
        let text = help(&[&command]);
        let name = format!("fleet {command}");
        assert!(document.contains(&name), "{name}");
        check(&[&command], &text);
        for below in commands(&text) {
            let name = format!("fleet {command} {below}");
            assert!(document.contains(&name), "{name}");
            check(&[&command, &below], &help(&[&command, &below]));
        }
    }
    assert!(seen > 50, "only {seen} flags found: has help changed?");
}

fn documents() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap();
    docs.map(|entry| entry.unwrap().path())
        .chain(["README.md", "CHANGELOG.md"].map(|name| root().join(name)))
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect()
}

/// The anchor that a heading gets.
fn anchors(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            });
            kept.collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            let shown = document.display();
            assert!(target.exists(), "{shown}: {link} is not there");
            if !anchor.is_empty() {
                let anchors = anchors(&read(&target));
                assert!(
                    anchors.iter().any(|a| a == anchor),
                    "{shown}: no heading for {link}"
                );
            }
        }
    }
    assert!(links > 8, "only {links} links found");
}
