//! The header of a chunk of output, as it was written once (see `contract/tests/fixtures.rs`).

use fleet_contract::outcome::OutputStream;
use fleet_nats::output::ChunkHead;

#[test]
fn chunk_heads_of_this_and_a_later_version_are_read() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/contract/tests/fixtures");
    let read = |version: &str| {
        let text = std::fs::read(format!("{fixtures}/{version}/chunk.json")).unwrap();
        serde_json::from_slice::<ChunkHead>(&text).unwrap()
    };
    let one = read("v1");
    assert_eq!((one.v, one.seq), (1, 3));
    assert_eq!((one.stream, one.offset), (OutputStream::Stdout, 4));
    assert_eq!(ChunkHead { v: 1, ..read("v2") }, one);
}
