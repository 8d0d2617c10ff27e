//! `fleet tui`: the console.

use std::io::IsTerminal;

use fleet_nats::hub::Permission;
use fleet_tui::{ConsoleStyle, Left, Motion, Options, TuiError};

use crate::args::Tui;
use crate::context::{self, Context};
use crate::failure::{Failure, Outcome};
use crate::remarks::Hold;

/// Whether there is a terminal to draw on.
pub(crate) fn possible(cx: &Context) -> bool {
    !cx.output.is_json() && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// Shows the console until the person leaves it.
pub(crate) async fn run(args: &Tui, cx: &mut Context) -> Outcome {
    if !cx.output.is_plain() && !possible(cx) {
        return Err(Failure::usage("the console needs a terminal")
            .next("fleet tui --plain, or fleet flow -f"));
    }
    let left = show(args, false, cx).await?;
    Ok(match left {
        Left::Quit => 0,
        Left::Signal(number) => u8::try_from(128 + number).unwrap_or(u8::MAX),
    })
}

/// The console, for `tui` and `up`.
/// `with_hub` where hub and agent run in this process.
pub(crate) async fn show(args: &Tui, with_hub: bool, cx: &mut Context) -> Result<Left, Failure> {
    let environment = &cx.environment;
    let color = cx.settings.color();
    let options = Options {
        connect: cx
            .way_to_the_hub("fleet tui", &[Permission::Viewer, Permission::Operator])
            .await?,
        name: String::new(),
        style: ConsoleStyle {
            colour: color.enabled(true, environment.no_color, environment.dumb),
            ascii: args.ascii,
            // A terminal that cannot move its cursor gets lines.
            plain: cx.output.is_plain() || environment.dumb,
            motion: match (args.still, environment.far) {
                (true, _) => Motion::Still,
                (false, true) => Motion::Calm,
                (false, false) => Motion::Full,
            },
            mouse: !args.no_mouse && cx.settings.console_mouse().0,
        },
        keys: cx.settings.console_bound(),
        with_hub,
    };
    let _hold = (!options.style.plain).then(Hold::begin);
    fleet_tui::run(options).await.map_err(|error| match error {
        TuiError::Connect(error) => context::no_hub(error),
        TuiError::Terminal(_) => {
            Failure::usage(error.to_string()).next("fleet tui --plain, or fleet flow -f")
        }
        TuiError::Source => Failure::internal(error.to_string()),
    })
}
