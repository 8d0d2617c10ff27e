//! The jobs of a history: what each kind does, as a script, and what it must have written, to the
//! byte. Pure: the script is a text, and what it writes follows from the job's own command.

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Some lines at once, and the end.
    Quick,
    /// A line every quarter of a second.
    Steady,
    /// Bursts of output that fill several chunks each.
    Loud,
    /// As steady, with a line on standard error beside each.
    Both,
    /// As steady, and leaves children behind that would live for long.
    Forks,
    /// Goes on for ever and ignores TERM: its time-out ends it, with KILL.
    Stubborn,
    /// Goes on for ever: its time-out ends it.
    Endless,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Quick,
        Self::Steady,
        Self::Loud,
        Self::Both,
        Self::Forks,
        Self::Stubborn,
        Self::Endless,
    ];

    /// Its word in the job's command.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Steady => "steady",
            Self::Loud => "loud",
            Self::Both => "both",
            Self::Forks => "forks",
            Self::Stubborn => "stubborn",
            Self::Endless => "endless",
        }
    }

    /// Whether it never ends by itself.
    pub(crate) fn is_endless(self) -> bool {
        matches!(self, Self::Stubborn | Self::Endless)
    }
}

/// One job's command, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    /// How many lines or bursts.
    pub(crate) size: u64,
    /// How it ends.
    pub(crate) exit: u8,
}

/// Lines in one burst of a loud job.
const BURST: u64 = 4000;
/// More lines than an endless job writes before it is ended.
const ENDLESS: u64 = 5000;

impl Shape {
    /// What follows `--` in its dispatch.
    pub(crate) fn command(self, script: &str) -> Vec<String> {
        let words = [
            "/bin/sh",
            script,
            self.kind.word(),
            &self.size.to_string(),
            &self.exit.to_string(),
        ];
        words.map(str::to_owned).to_vec()
    }

    /// The shape of a job with this command.
    pub(crate) fn of(command: &[String]) -> Option<Self> {
        let [_, _, word, size, exit] = command else {
            return None;
        };
        Some(Self {
            kind: Kind::ALL.into_iter().find(|kind| kind.word() == word)?,
            size: size.parse().ok()?,
            exit: exit.parse().ok()?,
        })
    }

    /// All that it writes, to standard output and error, if nothing ends it: each line says which
    /// attempt it is of and its number. An attempt that was ended has written the beginning of it.
    pub(crate) fn writes(self, token: u64) -> (Vec<u8>, Vec<u8>) {
        let lines = |count: u64| {
            let mut text = Vec::new();
            for n in 1..=count {
                text.extend_from_slice(format!("{token} {n}\n").as_bytes());
            }
            text
        };
        match self.kind {
            Kind::Quick | Kind::Steady | Kind::Forks => (lines(self.size), Vec::new()),
            Kind::Loud => (lines(self.size * BURST), Vec::new()),
            Kind::Both => (lines(self.size), lines(self.size)),
            Kind::Stubborn | Kind::Endless => (lines(ENDLESS), Vec::new()),
        }
    }
}

/// The script of every job. It tells its begin and its end to a file that only the test reads, by
/// one write of a line each, with a time that runs on through everything; and it finds out whether
/// another attempt of its job still has a process, by a lock that all of an attempt's processes
/// hold as long as they live.
pub(crate) const SCRIPT: &str = r#"
dir=${0%/*}
say() {
  read -r up rest </proc/uptime
  printf '%s %s %s %s %s %s %s\n' "$1" "$FLEET_JOB" "$FLEET_ATTEMPT" "$FLEET_FENCING_TOKEN" \
    "$FLEET_MACHINE" "$up" "$2" >>"$dir/effects"
}
lines() { seq -f "$FLEET_FENCING_TOKEN %.0f" "$1" "$2"; }
exec 9>>"$dir/lock.$FLEET_JOB"
alone=alone
flock -n 9 || alone=beside
say begin $alone
trap '' PIPE
i=0
case $1 in
quick) lines 1 "$2" ;;
loud)
  while [ $i -lt "$2" ]; do
    lines $((i * 4000 + 1)) $((i * 4000 + 4000))
    i=$((i + 1))
    sleep 0.3
  done
  ;;
*)
  [ "$1" = stubborn ] && trap '' TERM
  if [ "$1" = forks ]; then
    sleep 1000 &
    setsid sleep 1000 >/dev/null 2>&1 </dev/null &
    (setsid sh -c 'trap "" TERM; sleep 1000; sleep 1000' &)
  fi
  while [ "$1" = stubborn ] || [ "$1" = endless ] || [ $i -lt "$2" ]; do
    i=$((i + 1))
    printf '%s %s\n' "$FLEET_FENCING_TOKEN" $i
    [ "$1" = both ] && printf '%s %s\n' "$FLEET_FENCING_TOKEN" $i >&2
    sleep 0.25
  done
  ;;
esac
say end "$3"
exit "$3"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_as_it_was_written() {
        for kind in Kind::ALL {
            let shape = Shape {
                kind,
                size: 7,
                exit: 3,
            };
            assert_eq!(Shape::of(&shape.command("/x/job.sh")), Some(shape));
        }
        assert_eq!(Shape::of(&["true".to_owned()]), None);
    }

    /// The script is run here and now: what it writes is what the test expects of it.
    #[test]
    fn the_script_writes_what_is_expected_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("job.sh");
        std::fs::write(&script, SCRIPT).unwrap();
        for kind in [Kind::Quick, Kind::Steady, Kind::Loud, Kind::Both] {
            let shape = Shape {
                kind,
                size: 2,
                exit: 4,
            };
            let words = shape.command(script.to_str().unwrap());
            let out = std::process::Command::new(&words[0])
                .args(&words[1..])
                .env("FLEET_JOB", kind.word())
                .env("FLEET_ATTEMPT", "a")
                .env("FLEET_FENCING_TOKEN", "17")
                .env("FLEET_MACHINE", "here")
                .output()
                .unwrap();
            assert_eq!(out.status.code(), Some(4), "{kind:?}: {out:?}");
            let (stdout, stderr) = shape.writes(17);
            assert!(out.stdout == stdout && out.stderr == stderr, "{kind:?}");
        }
        let effects = std::fs::read_to_string(dir.path().join("effects")).unwrap();
        assert_eq!(effects.lines().count(), 8, "{effects}");
        assert!(effects.contains("alone"), "{effects}");
    }
}
