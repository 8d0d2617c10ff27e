//! Both streams, as bytes, in order, bounded.

use fleet_contract::outcome::{CHUNK_MAX_BYTES, OutputStream};
use sha2::{Digest, Sha256};

use crate::support::{Home, exited, shell};

#[tokio::test]
async fn a_hundred_megabytes_are_intact() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let line = "seq 1 100000000 | head -c 104857600 | tee /dev/fd/2 | sha256sum >&3";
    let sum = home.scratch().join("sum");
    let request = shell(&format!(
        "exec 3>{}; ({line}) 2>&1 1>/dev/null",
        sum.display()
    ));
    let end = agent.run(&request).await;
    assert_eq!(end.outcome, exited(0));
    assert_eq!(end.output.stdout.bytes, 104_857_600);
    assert_eq!(end.output.stdout.dropped, 0);
    let mut hash = Sha256::new();
    let (mut next, mut offset) = (1, 0);
    let mut reader = agent.log(&request);
    while next <= end.output.chunks {
        let read = reader.read_from(next, end.output.chunks, 1 << 20).unwrap();
        assert_eq!(read.gap, None);
        for chunk in read.chunks {
            assert_eq!((chunk.seq, chunk.offset), (next, offset));
            hash.update(&chunk.bytes);
            offset += chunk.bytes.len() as u64;
            next += 1;
        }
    }
    let expected = std::fs::read_to_string(&sum).unwrap();
    let ours: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    assert!(expected.starts_with(&ours), "{expected} {ours}");
    // Dense output makes full chunks.
    let average = end.output.stdout.bytes / end.output.chunks;
    assert!(average > CHUNK_MAX_BYTES as u64 / 2, "{average}");
    #[cfg(target_os = "linux")]
    {
        let status = format!("/proc/{}/status", agent.client.pid());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
        let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 64 * 1024, "{peak}");
    }
}

#[tokio::test]
async fn only_the_last_of_it_is_kept_and_the_rest_is_counted() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let mut request = shell("head -c 20000000 /dev/zero; echo the end");
    request.spec.log_keep_bytes = 1_000_000;
    let end = agent.run(&request).await;
    assert_eq!(end.output.stdout.bytes, 20_000_008);
    let kept = end.output.stdout.bytes - end.output.stdout.dropped;
    assert!((1_000_000..1_300_000).contains(&kept), "{kept}");
    let read = agent
        .log(&request)
        .read_from(1, end.output.chunks, 10_000_000)
        .unwrap();
    let gap = read.gap.unwrap();
    assert_eq!((gap.from, gap.to + 1), (1, read.chunks[0].seq));
    assert_eq!(read.chunks[0].offset, end.output.stdout.dropped);
    assert!(read.chunks.last().unwrap().bytes.ends_with(b"the end\n"));
}

#[tokio::test]
async fn bytes_that_are_no_text_pass() {
    let home = Home::new();
    let mut agent = home.connect().await;
    let request = shell(r"printf '\377\000\303(\200'; printf '\376\000' >&2");
    let end = agent.run(&request).await;
    let chunks = agent.chunks(&request, end.output.chunks);
    let of = |stream| -> Vec<u8> {
        let chunks = chunks.iter().filter(|c| c.stream == stream);
        chunks.flat_map(|c| c.bytes.to_vec()).collect()
    };
    assert_eq!(of(OutputStream::Stdout), b"\xff\0\xc3(\x80");
    assert_eq!(of(OutputStream::Stderr), b"\xfe\0");
}

#[tokio::test]
async fn streams_that_take_turns_keep_their_order() {
    let home = Home::new();
    let mut agent = home.connect().await;
    // Each waits until what is before it was read: what lies in both pipes at once has no order.
    let gate = home.scratch().join("gate-");
    let gate = gate.display();
    let request = shell(&format!(
        "wait_for() {{ while ! test -e {gate}$1; do sleep 0.01; done; }}; \
         for i in 1 2 3; do echo o$i; wait_for o$i; echo e$i >&2; wait_for e$i; done"
    ));
    agent.start(&request).await;
    for (number, name) in ["o1", "e1", "o2", "e2", "o3", "e3"].iter().enumerate() {
        agent.output(&request, number as u64 + 1).await;
        std::fs::write(format!("{gate}{name}"), "").unwrap();
    }
    let end = agent.end(&request).await;
    let chunks = agent.chunks(&request, end.output.chunks);
    let text: Vec<u8> = chunks.iter().flat_map(|c| c.bytes.to_vec()).collect();
    assert_eq!(String::from_utf8(text).unwrap(), "o1\ne1\no2\ne2\no3\ne3\n");
    assert!(chunks.windows(2).all(|c| c[0].time <= c[1].time));
}

#[tokio::test]
async fn a_slow_printer_is_heard_at_once() {
    let home = Home::new();
    let mut agent = home.connect().await;
    // The time of writing travels in the output itself.
    let request = shell("date +%s%N; exec sleep 600");
    agent.start(&request).await;
    // It has not ended: what it said is not held back until then.
    agent.output(&request, 1).await;
    let said: i64 = agent.text(&request, 1).trim().parse().unwrap();
    let heard = agent.chunks(&request, 1)[0].time.as_micros();
    assert!(heard * 1000 >= said - 1_000_000, "{heard} {said}");
    agent
        .client
        .kill(request.attempt, fleet_agent::executor::KillCause::Cancel)
        .await
        .unwrap();
    agent.end(&request).await;
}
