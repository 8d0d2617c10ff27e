//! The coverage-guided fuzzer of one target, named by `FLEET_FUZZ_TARGET`. Everything else about it
//! (seeds, time, limits) is said with libFuzzer's own flags: `.ci/run fuzz` shows how.
#![no_main]

use std::sync::LazyLock;

use fleet_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("FLEET_FUZZ_TARGET").unwrap_or_default();
    fleet_fuzz::target(&name)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.run)(data));
