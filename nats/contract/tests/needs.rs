//! Requirements: what is refused and with which words, that a set has one form and one only, and
//! that who satisfies more never runs less.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use fleet_contract::ids::Lane;
use fleet_contract::machine::Specs;
use fleet_contract::needs::{
    Access, Facts, Found, Gpu, Model, NEEDS_MAX, NeedError, Needs, Probed, Problem, Reserved,
    Skill, nearest,
};
use fleet_contract::time::Time;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Needs, NeedError> {
    Needs::parse([text])
}

fn form(text: &str) -> String {
    parse(text).unwrap_or_else(|e| panic!("{e}")).to_string()
}

#[test]
fn a_set_is_written_in_one_way() {
    for (typed, canonical) in [
        ("docker", "docker"),
        ("Docker , docker", "docker"),
        ("node >= 20", "node>=20"),
        ("node>=v20.0,node", "node>=20"),
        ("node>=18,node>=20", "node>=20"),
        ("node@20", "node@20"),
        ("node<21,node>=20", "node@20"),
        ("node<22,node>=20", "node<22,node>=20"),
        ("node≥20", "node>=20"),
        ("os=Darwin", "os=macos"),
        ("arch=arm64", "arch=aarch64"),
        ("arch=amd64", "arch=x86_64"),
        ("mem>=16384MiB", "mem>=16GiB"),
        ("ram>=8g,memory>=1.5TiB", "mem>=1536GiB"),
        ("gpu>=1", "gpu"),
        ("gpus", "gpu"),
        ("gpu,gpu-mem>=24GiB", "gpu-mem>=24GiB"),
        ("gpu-mem>=24GiB,gpu>=2", "gpu-mem>=24GiB,gpu>=2"),
        ("cpus>=8", "cores>=8"),
        ("site=ams", "site=ams"),
        ("Site=Ams", "site=Ams"),
        ("model=llama3:8b", "model=llama3:8b"),
        (
            "repo=git@github.com:me/app.git",
            "repo=git@github.com:me/app.git",
        ),
        ("repo=https://x.org/a?b=c/", "repo=https://x.org/a?b=c"),
        ("url=https://x.org", "url=https://x.org"),
        ("site=ams,mem>=1GiB,docker", "docker,mem>=1GiB,site=ams"),
    ] {
        assert_eq!(form(typed), canonical, "{typed}");
        assert_eq!(form(canonical), canonical);
    }
    assert_eq!(Needs::default().lane(), Lane::any());
    assert_eq!("".parse::<Needs>().unwrap(), Needs::default());
}

#[test]
fn what_is_no_requirement_is_refused_with_the_place_and_what_to_type() {
    use Problem as P;
    for (typed, at, problem, hint) in [
        ("", 1, P::Empty, "type something like docker or node>=20"),
        (
            "docker,",
            8,
            P::Empty,
            "type something like docker or node>=20",
        ),
        (
            "a, ,b",
            4,
            P::Empty,
            "type something like docker or node>=20",
        ),
        (
            "my skill",
            3,
            P::Name,
            "type a skill's name, or NAME=VALUE for a label",
        ),
        (
            "=x",
            1,
            P::Name,
            "type a skill's name, or NAME=VALUE for a label",
        ),
        (
            "-x",
            1,
            P::Name,
            "type a skill's name, or NAME=VALUE for a label",
        ),
        ("https://x.org/a", 1, P::Name, "type repo=https://x.org/a"),
        (
            "git@github.com:a/b",
            4,
            P::Version,
            "type repo=git@github.com:a/b",
        ),
        (
            "node>20",
            5,
            P::Operator,
            "type node>=20, or node@20 for versions that begin so",
        ),
        (
            "node=>20",
            5,
            P::Operator,
            "type node>=20, or node@20 for versions that begin so",
        ),
        (
            "node<=20",
            5,
            P::Operator,
            "type node<VERSION, the first too high",
        ),
        (
            "node==20",
            5,
            P::Operator,
            "type node@20 for versions that begin so",
        ),
        (
            "node~20",
            5,
            P::Operator,
            "type node>=20, or node@20 for versions that begin so",
        ),
        (
            "node^20",
            5,
            P::Operator,
            "type node>=20, or node@20 for versions that begin so",
        ),
        (
            "os!=linux",
            3,
            P::Operator,
            "say what it must have, not what it must not",
        ),
        ("os==linux", 3, P::Operator, "type os=linux"),
        ("mem>16GiB", 4, P::Operator, "type mem>=16GiB"),
        ("mem<=16GiB", 4, P::Operator, "type mem>=16GiB"),
        ("site:ams", 5, P::Operator, "type site=ams"),
        ("mem=16GiB", 5, P::Relation, "type mem>=16GiB"),
        ("mem<16GiB", 5, P::Relation, "type mem>=16GiB"),
        ("os>=15", 5, P::Relation, "type os=15"),
        ("model@x", 7, P::Relation, "type model=x"),
        ("mem", 4, P::NoValue, "type mem>=16GiB"),
        ("mem>=", 6, P::NoValue, "type mem>=16GiB"),
        ("gpu-mem", 8, P::NoValue, "type gpu-mem>=24GiB"),
        ("cores", 6, P::NoValue, "type cores>=8"),
        ("gpu>=", 6, P::NoValue, "type gpu>=2"),
        ("os", 3, P::NoValue, "type os=macos"),
        ("arch=", 6, P::NoValue, "type arch=aarch64"),
        ("repo", 5, P::NoValue, "type repo=git@github.com:me/app.git"),
        ("model=", 7, P::NoValue, "type model=llama3"),
        ("site=", 6, P::NoValue, "type site=VALUE"),
        ("node>=", 7, P::NoValue, "type node>=20"),
        (
            "node@lts",
            6,
            P::Version,
            "type node>=20, or node=lts for a label",
        ),
        ("node>=20-rc1", 7, P::Version, "type node>=20"),
        ("node>=20..1", 7, P::Version, "type node>=20"),
        ("node<0", 6, P::Version, "type node>=20"),
        ("docker,mem>=16", 13, P::Size, "type mem>=16GiB"),
        ("mem>=lots", 6, P::Size, "type mem>=16GiB"),
        ("cores>=8GiB", 8, P::Count, "type cores>=8"),
        ("gpu>=1.5", 6, P::Count, "type gpu>=2"),
        ("mem>=0GiB", 6, P::Zero, "leave mem out"),
        ("gpu>=0", 6, P::Zero, "leave gpu out"),
        (
            "os=linux,os=macos",
            10,
            P::Contradiction,
            "drop it, or os=linux",
        ),
        (
            "node>=20,node<18",
            10,
            P::Contradiction,
            "drop it, or node>=20",
        ),
        (
            "node@18,node@20",
            9,
            P::Contradiction,
            "drop it, or node@18",
        ),
        ("k=a,k=b", 5, P::Contradiction, "drop it, or k=a"),
        ("os=my os", 4, P::Name, "type os=macos"),
    ] {
        let error = parse(typed).expect_err(typed);
        assert_eq!(
            (error.at, error.problem, error.hint.as_str()),
            (at, problem, hint),
            "{typed}"
        );
        let text = error.to_string();
        let begin = format!("cannot read requirement {typed:?} at character {at}: ");
        assert!(text.starts_with(&begin), "{text}");
    }
    let many: Vec<String> = (0..=NEEDS_MAX).map(|n| format!("s{n}")).collect();
    let error = Needs::parse(many.iter().map(String::as_str)).unwrap_err();
    assert_eq!(
        (error.problem, error.text.as_str()),
        (Problem::TooMany, "s32")
    );
    let long = "x".repeat(64);
    assert_eq!(parse(&long).unwrap_err().problem, Problem::Name);
    let long = format!("k={}", "x".repeat(257));
    assert_eq!(parse(&long).unwrap_err().problem, Problem::Value);
    assert_eq!(parse("k=\u{7}").unwrap_err().problem, Problem::Value);
    // What contradicts may stand in another flag.
    let error = Needs::parse(["os=linux", "docker,os=macos"]).unwrap_err();
    assert_eq!((error.text.as_str(), error.at), ("docker,os=macos", 8));
}

/// A machine that tests describe in a few words.
#[derive(Debug, Clone, Default)]
struct Box_ {
    specs: Specs,
    labels: BTreeMap<String, String>,
    probed: Probed,
}

fn at(ms: i64) -> Time {
    Time::from_micros(ms * 1000)
}

impl Box_ {
    fn skill(mut self, name: &str, version: Option<&str>) -> Self {
        let skill = Skill {
            ok: true,
            version: version.map(str::to_owned),
            checked_at: at(5),
            ..Skill::default()
        };
        self.probed.skills.insert(name.to_owned(), skill);
        self
    }

    fn gpus(mut self, gib: &[u64]) -> Self {
        let gpu = |(index, gib): (u32, &u64)| Gpu {
            index,
            mem: gib << 30,
            checked_at: at(6),
            ..Gpu::default()
        };
        self.probed.gpus = (0..).zip(gib).map(gpu).collect();
        self
    }

    fn facts(&self) -> Facts<'_> {
        Facts::new(&self.specs, &self.labels, &self.probed, at(9))
    }

    fn lacks(&self, needs: &str) -> Vec<(String, Found, Time)> {
        let needs = parse(needs).unwrap();
        let missing = needs.missing(&self.facts()).collect::<Vec<_>>();
        missing
            .into_iter()
            .map(|m| (m.need, m.found, m.checked_at))
            .collect()
    }
}

fn studio() -> Box_ {
    let mut studio = Box_::default()
        .skill("node", Some("v20.11.1"))
        .skill("git", None)
        .gpus(&[24, 8]);
    studio.specs = Specs {
        os: "macos".to_owned(),
        arch: "aarch64".to_owned(),
        cores: 8,
        mem_total: 16 << 30,
        ..Specs::default()
    };
    studio.labels.insert("Site".to_owned(), "ams".to_owned());
    let broken = Skill {
        reason: Some("not logged in".to_owned()),
        checked_at: at(4),
        ..Skill::default()
    };
    studio.probed.skills.insert("claude".to_owned(), broken);
    studio.probed.models.push(Model {
        name: "llama3:8b".to_owned(),
        server: "ollama".to_owned(),
        checked_at: at(3),
    });
    let access = |ok, reason: Option<&str>| Access {
        ok,
        checked_at: at(2),
        reason: reason.map(str::to_owned),
    };
    studio
        .probed
        .repos
        .insert("git@a:b".to_owned(), access(true, None));
    studio
        .probed
        .repos
        .insert("git@a:c".to_owned(), access(false, Some("denied")));
    studio
}

#[test]
fn what_is_missing_is_said_with_what_was_measured_and_when() {
    let studio = studio();
    for fits in [
        "os=macos,arch=aarch64,cores>=8,mem>=16GiB,gpu>=2",
        "gpu-mem>=24GiB",
        "node,node>=20,node@20.11,node<21,git",
        "site=ams",
        "model=llama3",
        "model=LLaMA3:8b",
        "repo=git@a:b",
    ] {
        assert_eq!(studio.lacks(fits), [], "{fits}");
    }
    // Two of so much memory each: only one is.
    assert_eq!(
        studio.lacks("gpu>=2,gpu-mem>=24GiB"),
        [("gpu-mem>=24GiB".to_owned(), Found::Count(1), at(6))]
    );
    for (needs, found, checked) in [
        ("os=linux", Found::Value("macos".to_owned()), 9),
        ("mem>=32GiB", Found::Bytes(16 << 30), 9),
        ("cores>=9", Found::Count(8), 9),
        ("gpu>=3", Found::Count(2), 6),
        ("gpu-mem>=25GiB", Found::Small(24 << 30), 6),
        ("site=fra", Found::Value("ams".to_owned()), 9),
        ("rack=1", Found::Nothing, 9),
        ("node=20", Found::IsSkill("v20.11.1".to_owned()), 9),
        ("site", Found::IsLabel("ams".to_owned()), 9),
        ("node>=22", Found::Version("v20.11.1".to_owned()), 5),
        ("git>=2", Found::NoVersion, 5),
        ("docker", Found::Nothing, 9),
        ("claude", Found::Failing("not logged in".to_owned()), 4),
        ("model=llama", Found::Nothing, 3),
        ("model=llama3:70b", Found::Nothing, 3),
        ("repo=git@a:c", Found::Failing("denied".to_owned()), 2),
        ("repo=git@a:d", Found::NotChecked, 9),
    ] {
        assert_eq!(
            studio.lacks(needs),
            [(needs.to_owned(), found, at(checked))]
        );
    }
    // The first thing is what a machine is, then what it has, then what it can.
    let all = studio.lacks("docker,mem>=32GiB,os=linux,rack=1");
    let order: Vec<&str> = all.iter().map(|(need, _, _)| need.as_str()).collect();
    assert_eq!(order, ["os=linux", "mem>=32GiB", "rack=1", "docker"]);
}

#[test]
fn what_jobs_hold_keeps_a_machine_from_more_for_now() {
    let mut studio = studio();
    let held = |studio: &Box_, needs: &str| parse(needs).unwrap().held(&studio.facts());
    assert_eq!(held(&studio, "mem>=16GiB,gpu>=2"), None);
    studio.probed.reserved = Reserved {
        mem: 8 << 30,
        gpus: vec![0],
    };
    assert!(parse("mem>=16GiB,gpu>=2").unwrap().fit(&studio.facts()));
    assert_eq!(held(&studio, "mem>=8GiB,gpu"), None);
    let mem = held(&studio, "mem>=9GiB").unwrap();
    assert_eq!(
        (mem.need.as_str(), &mem.found),
        ("mem>=9GiB", &Found::ReservedBytes(8 << 30))
    );
    assert!(mem.found.passes());
    let gpu = held(&studio, "gpu-mem>=24GiB").unwrap();
    assert_eq!(gpu.found, Found::ReservedCount(1));
    assert_eq!(held(&studio, "docker"), None);
}

#[test]
fn the_nearest_misses_lack_least() {
    let needs = parse("os=macos,docker,mem>=32GiB").unwrap();
    let (mini, box_) = (studio().skill("docker", None), Box_::default());
    let mut large = mini.clone();
    large.specs.mem_total = 32 << 30;
    let studio = studio();
    let all = [
        ("z", &box_),
        ("studio", &studio),
        ("mini", &mini),
        ("large", &large),
    ];
    let near = nearest(&needs, all.map(|(name, b)| (name, b.facts())), 2);
    let near: Vec<_> = near
        .iter()
        .map(|n| (n.machine, n.lacks, n.first.need.as_str()))
        .collect();
    assert_eq!(
        near,
        [("mini", 1, "mem>=32GiB"), ("studio", 2, "mem>=32GiB")]
    );
}

/// One requirement, spelled in some way.
fn spelled() -> impl Strategy<Value = String> {
    let number = prop_oneof![0..30u32, Just(u32::MAX)];
    let version = proptest::collection::vec(number, 1..4).prop_map(|numbers| {
        let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
        words.join(".")
    });
    let skill = (
        prop_oneof![Just("node"), Just("go"), Just("Node")],
        prop_oneof![Just(">="), Just("<"), Just("@"), Just(" >= "), Just("≥")],
        version,
    );
    let size = (
        1..2000u64,
        prop_oneof![
            Just("GiB"),
            Just("m"),
            Just("GB"),
            Just(" kib"),
            Just(".5g")
        ],
    );
    prop_oneof![
        Just("docker".to_owned()),
        Just("node".to_owned()),
        skill.prop_map(|(name, op, version)| format!("{name}{op}{version}")),
        size.clone().prop_map(|(n, unit)| format!("mem>={n}{unit}")),
        size.prop_map(|(n, unit)| format!("vram >= {n}{unit}")),
        (1..9u32).prop_map(|n| format!("gpu>={n}")),
        Just("gpu".to_owned()),
        (1..9u32).prop_map(|n| format!("cores>={n}")),
        prop_oneof![Just("os=macos"), Just("os=Darwin"), Just("arch=arm64")]
            .prop_map(str::to_owned),
        "[a-c]=[ -+\\--~äß€]{1,5}",
        "model=[a-z0-9:.]{1,6}",
        "repo=git@[a-z.:/]{1,8}",
    ]
}

/// A set that can be read, as it was typed.
fn typed() -> impl Strategy<Value = (Vec<String>, Needs)> {
    proptest::collection::vec(spelled(), 0..7).prop_map(|texts| {
        let mut kept: Vec<String> = Vec::new();
        for text in texts {
            let with = kept.iter().chain([&text]).map(String::as_str);
            if Needs::parse(with).is_ok() {
                kept.push(text);
            }
        }
        let needs = Needs::parse(kept.iter().map(String::as_str)).unwrap();
        (kept, needs)
    })
}

fn machine() -> impl Strategy<Value = Box_> {
    let version = prop_oneof![
        Just(None),
        (0..30u32, 0..30u32).prop_map(|(a, b)| Some(format!("v{a}.{b}-rc.1")))
    ];
    let skills = proptest::collection::btree_map("node|go|docker", version, 0..3);
    let gpus = proptest::collection::vec(1..2000u64, 0..4);
    let labels = proptest::collection::btree_map("[a-c]", "[ -+\\--~]{1,2}", 0..3);
    (skills, gpus, labels, 0..3000u64, 0..10u32, any::<bool>()).prop_map(
        |(skills, gpus, labels, gib, cores, mac)| {
            let mut machine = Box_::default().gpus(&gpus);
            for (name, version) in &skills {
                machine = machine.skill(name, version.as_deref());
            }
            machine.labels = labels;
            machine.specs.mem_total = gib << 30;
            machine.specs.cores = cores;
            machine.specs.os = if mac { "macos" } else { "linux" }.to_owned();
            machine
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn parse_never_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn parse_never_panics_on_what_looks_like_requirements(
        text in "([a-c]|gpu|mem|os|git|node|model|repo|[0-9]{1,12}|[.,:=<>@!~^≥≤ ä/-]|GiB|://){0,12}"
    ) {
        match parse(&text) {
            Ok(needs) => prop_assert_eq!(parse(&needs.to_string()), Ok(needs)),
            Err(error) => {
                prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1, "{}", error);
                prop_assert!(!error.hint.is_empty());
            }
        }
    }

    #[test]
    fn the_canonical_form_means_itself((_, needs) in typed()) {
        let form = needs.to_string();
        let again: Needs = form.parse().unwrap();
        prop_assert_eq!(&again, &needs);
        prop_assert_eq!(again.to_string(), form.clone());
        prop_assert_eq!(again.lane(), needs.lane());
        prop_assert_eq!(serde_json::from_str::<Needs>(&serde_json::to_string(&needs).unwrap()).unwrap(), needs);
        let mut words: Vec<&str> = form.split(',').collect();
        words.sort_unstable();
        words.dedup();
        prop_assert_eq!(words.join(","), form);
    }

    #[test]
    fn order_repetition_and_flags_change_nothing(
        ((texts, needs), order) in typed().prop_flat_map(|(texts, needs)| {
            let twice: Vec<String> = texts.iter().chain(&texts).cloned().collect();
            (Just((texts, needs)), Just(twice).prop_shuffle())
        })
    ) {
        let shuffled = Needs::parse(order.iter().map(String::as_str)).unwrap();
        prop_assert_eq!(&shuffled, &needs);
        if !texts.is_empty() {
            prop_assert_eq!(parse(&order.join(" , ")).unwrap(), needs);
        }
    }

    #[test]
    fn equal_sets_have_equal_lanes_and_no_others((_, a) in typed(), (_, b) in typed()) {
        prop_assert_eq!(a == b, a.lane() == b.lane());
        prop_assert_eq!(a == b, a.to_string() == b.to_string());
    }

    #[test]
    fn who_requires_more_gets_no_further_machine((texts, needs) in typed(), machine in machine()) {
        let fewer = texts.iter().map(String::as_str).skip(1);
        let fewer = Needs::parse(fewer).unwrap();
        if needs.fit(&machine.facts()) {
            prop_assert!(fewer.fit(&machine.facts()), "{} fits, {} does not", needs, fewer);
        }
        if needs.held(&machine.facts()).is_none() {
            prop_assert!(fewer.held(&machine.facts()).is_none());
        }
    }

    #[test]
    fn a_machine_with_more_runs_no_less((_, needs) in typed(), machine in machine()) {
        let mut more = machine.clone().skill("ruff", None);
        more.specs.mem_total += 1;
        more.specs.cores += 1;
        more.probed.gpus.push(Gpu { index: 99, mem: 1 << 40, ..Gpu::default() });
        more.labels.entry("b".to_owned()).or_insert_with(|| "!".to_owned());
        if needs.fit(&machine.facts()) {
            prop_assert!(needs.fit(&more.facts()));
        }
    }

    #[test]
    fn what_fits_can_be_taken_when_nothing_is_held((_, needs) in typed(), machine in machine()) {
        if needs.fit(&machine.facts()) {
            prop_assert_eq!(needs.held(&machine.facts()), None);
        }
    }
}

/// Two sets that mean the same to every machine are one lane: tried with all sets of three out of
/// these, on every machine that could tell them apart.
#[test]
fn sets_that_mean_the_same_are_the_same() {
    const WORDS: [&str; 14] = [
        "x",
        "x>=20",
        "x>=20.0",
        "x@20",
        "x@20.0",
        "x<21",
        "x<22",
        "x>=21",
        "x>=20.1",
        "x@0",
        "gpu",
        "gpu>=2",
        "vram>=8GiB",
        "vram>=9GiB",
    ];
    const VERSIONS: [Option<&str>; 10] = [
        None,
        Some(""),
        Some("0.5"),
        Some("19"),
        Some("20"),
        Some("20.0.7"),
        Some("20.1"),
        Some("20.2"),
        Some("21"),
        Some("22"),
    ];
    const GPUS: [&[u64]; 7] = [&[], &[1], &[1, 1], &[8], &[8, 9], &[9, 9], &[1, 9]];
    let mut machines = Vec::new();
    for version in VERSIONS {
        for gpus in GPUS {
            let machine = Box_::default().gpus(gpus);
            machines.push(match version {
                None => machine,
                Some(version) => machine.skill("x", Some(version)),
            });
        }
    }
    let mut meanings: BTreeMap<Vec<bool>, Needs> = BTreeMap::new();
    let mut lanes: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for a in WORDS {
        for b in WORDS {
            for c in WORDS {
                let Ok(needs) = Needs::parse([a, b, c]) else {
                    continue;
                };
                let fits: Vec<bool> = machines.iter().map(|m| needs.fit(&m.facts())).collect();
                let before = meanings
                    .entry(fits.clone())
                    .or_insert_with(|| needs.clone());
                assert_eq!(*before, needs, "mean the same to all machines");
                let same = lanes
                    .entry(needs.lane().to_string())
                    .or_insert_with(|| fits.clone());
                assert_eq!(*same, fits, "one lane of two meanings: {needs}");
            }
        }
    }
    assert!(meanings.len() > 40, "{}", meanings.len());
}
