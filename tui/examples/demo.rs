//! The console over a made-up fleet: `cargo run -p fleet-tui --features demo --example demo --
//! [live|down|empty|catching-up|panic|fleet:300|down:300|recording:FILE] [--ascii] [--plain] [--mono]
//! [--still] [--no-mouse]`.

use fleet_tui::{ConsoleStyle, Motion, TuiError, demo};

#[tokio::main]
async fn main() -> Result<(), TuiError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| args.iter().any(|a| a == flag);
    let situation = args
        .iter()
        .find(|a| !a.starts_with("--"))
        .map_or("live", String::as_str);
    let style = ConsoleStyle {
        colour: !has("--mono") && std::env::var_os("NO_COLOR").is_none(),
        ascii: has("--ascii"),
        plain: has("--plain"),
        motion: if has("--still") {
            Motion::Still
        } else {
            Motion::Full
        },
        mouse: !has("--no-mouse"),
    };
    demo::run(style, situation).await.map(drop)
}
