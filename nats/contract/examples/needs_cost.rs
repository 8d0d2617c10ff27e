//! What matching costs: one set of requirements against many machines, and one machine against many
//! lanes. `cargo run --release -p fleet-contract --example needs_cost -- MACHINES LANES`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "it measures, and says what it measured"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use fleet_contract::machine::Specs;
use fleet_contract::needs::{Facts, Gpu, Needs, Probed, Skill, nearest};
use fleet_contract::time::Time;

const SKILLS: [&str; 12] = [
    "git", "docker", "node", "npm", "python", "uv", "rust", "cargo", "go", "java", "cmake",
    "ffmpeg",
];

struct Machine {
    specs: Specs,
    labels: BTreeMap<String, String>,
    probed: Probed,
}

impl Machine {
    fn new(n: usize) -> Self {
        let skill = |(i, name): (usize, &&str)| {
            let skill = Skill {
                ok: !(n + i).is_multiple_of(7),
                version: Some(format!("{}.{}.1", 18 + n % 6, i)),
                ..Skill::default()
            };
            ((*name).to_owned(), skill)
        };
        let gpu = |index| Gpu {
            index,
            mem: 24 << 30,
            ..Gpu::default()
        };
        Self {
            specs: Specs {
                os: if n.is_multiple_of(3) {
                    "macos"
                } else {
                    "linux"
                }
                .to_owned(),
                arch: "aarch64".to_owned(),
                cores: 8,
                mem_total: ((8 << (n % 4)) as u64) << 30,
                ..Specs::default()
            },
            labels: BTreeMap::from([("site".to_owned(), format!("s{}", n % 20))]),
            probed: Probed {
                skills: SKILLS.iter().enumerate().map(skill).collect(),
                gpus: (0..u32::try_from(n % 3).unwrap()).map(gpu).collect(),
                ..Probed::default()
            },
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts::new(&self.specs, &self.labels, &self.probed, Time::default())
    }
}

/// The median of 21 runs.
fn median(mut run: impl FnMut() -> usize) -> (Duration, usize) {
    let mut took: Vec<(Duration, usize)> = (0..21)
        .map(|_| {
            let begun = Instant::now();
            let found = black_box(run());
            (begun.elapsed(), found)
        })
        .collect();
    took.sort_unstable();
    took[took.len() / 2]
}

fn main() {
    let number = |n| std::env::args().nth(n).and_then(|a| a.parse().ok());
    let (machines, lanes) = (number(1).unwrap_or(3000), number(2).unwrap_or(100));
    let all: Vec<Machine> = (0..machines).map(Machine::new).collect();
    let needs: Needs = "os=macos,mem>=16GiB,docker,node>=20,gpu-mem>=16GiB,site=s3"
        .parse()
        .unwrap();
    let fits = || all.iter().filter(|m| needs.fit(&m.facts())).count();
    let (took, found) = median(fits);
    println!("{machines} machines, does it fit ({needs}): {found} do, {took:?}");
    let why = || all.iter().map(|m| needs.missing(&m.facts()).count()).sum();
    let (took, found) = median(why);
    println!("{machines} machines, everything that is missing: {found} things, {took:?}");
    let near = || {
        let named = all.iter().enumerate().map(|(n, m)| (n, m.facts()));
        nearest(&needs, named, 3).len()
    };
    println!(
        "{machines} machines, the three nearest misses: {:?}",
        median(near).0
    );
    let forms: Vec<String> = (0..lanes)
        .map(|n| format!("{},mem>={}GiB,node>={}", SKILLS[n % 12], 1 + n, 10 + n % 12))
        .collect();
    let (took, found) = median(|| {
        let read = forms.iter().map(|form| form.parse::<Needs>().unwrap());
        read.filter(|needs| needs.fit(&all[1].facts())).count()
    });
    println!("{lanes} lanes, read and compared by one agent: {found} fit, {took:?}");
}
