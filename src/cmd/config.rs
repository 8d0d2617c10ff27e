//! `fleet config show`: every setting and where its value comes from.

use std::path::PathBuf;

use fleet_nats::hub::{Credentials, HubRecord};
use fleet_nats::streams;
use fleet_nats::subject::stream;
use serde::Serialize;

use crate::config::keys::{KEYS, Table};
use crate::config::{Origin, Settings};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::style::Paint;
use crate::output::table::{Cell, Column};
use crate::output::{Answer, Look, table};
use crate::service::agent;
use crate::words;

#[derive(Debug, Serialize)]
struct Row {
    key: String,
    value: Option<String>,
    origin: String,
    /// What it is for.
    help: &'static str,
}

struct Rows(Vec<Row>);

impl Answer for Rows {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let mut table = table::Table::new(&[
            Column::new("SETTING"),
            Column::new("VALUE").shrinks(12),
            Column::new("FROM").shrinks(12),
        ]);
        for row in &self.0 {
            let paint = if row.origin == Origin::Default.to_string() {
                Paint::Dim
            } else {
                Paint::None
            };
            table.row(vec![
                Cell::new(&row.key),
                Cell::maybe(row.value.as_ref()),
                Cell::painted(&row.origin, paint),
            ]);
        }
        table.render(look.width, look.color)
    }
}

/// Shows them.
pub(crate) fn show(cx: &mut Context) -> Outcome {
    let rows = rows(&cx.settings);
    cx.show(&rows)?;
    Ok(0)
}

fn rows(settings: &Settings) -> Rows {
    let mut rows = vec![Row {
        key: "home".to_owned(),
        value: Some(settings.home.root().display().to_string()),
        origin: settings.home_origin.to_string(),
        help: "The root of every file fleet writes.",
    }];
    for key in &KEYS {
        let Some(setting) = settings.get(key.name) else {
            continue;
        };
        let (value, origin) = match &setting.value {
            Some(value) => (Some(value.to_string()), setting.origin.to_string()),
            None => effective(key.name, settings)
                .map_or((None, setting.origin.to_string()), |(v, o)| (Some(v), o)),
        };
        rows.push(Row {
            key: key.name.to_owned(),
            value,
            origin,
            help: key.help,
        });
    }
    for table in Table::ALL {
        rows.extend(settings.table(table).map(|(name, value, origin)| Row {
            key: format!("{}.{name}", table.name()),
            value: Some(value.to_owned()),
            origin: origin.to_string(),
            help: table.help(),
        }));
    }
    let (mouse, origin) = settings.console_mouse();
    rows.push(Row {
        key: "tui.mouse".to_owned(),
        value: Some(mouse.to_string()),
        origin: origin.to_string(),
        help: "Whether the console takes the mouse.",
    });
    rows.extend(settings.console_keys().map(|(name, keys, origin)| Row {
        key: format!("tui.keys.{name}"),
        value: Some(keys.join(", ")),
        origin: origin.to_string(),
        help: "Keys of the console.",
    }));
    Rows(rows)
}

/// What holds where nothing is set, because of the machine or its credentials, and why.
fn effective(key: &str, settings: &Settings) -> Option<(String, String)> {
    let home = &settings.home;
    let by_default = |value: String| Some((value, Origin::Default.to_string()));
    match key {
        "machine" => match agent::only_one(home) {
            Some(machine) => Some((machine.to_string(), format!("credentials/{machine}.creds"))),
            None => by_default(settings.machine().to_string()),
        },
        "slots" => by_default(settings.slots().to_string()),
        "logs_size" => by_default(stream_bytes(stream::LOG, settings)?),
        "flow_size" => by_default(stream_bytes(stream::FLOW, settings)?),
        "hub" => {
            let named = settings.path("credentials").map(PathBuf::from);
            let path = named.clone().unwrap_or_else(|| home.operator_credentials());
            let hubs = Credentials::load(&path).ok()?.hubs().join(", ");
            let shown = path.strip_prefix(home.root()).unwrap_or(&path);
            (!hubs.is_empty()).then(|| (hubs, shown.display().to_string()))
        }
        _ => None,
    }
}

/// What a stream of the hub that lives here may take where nobody has set it.
fn stream_bytes(name: &str, settings: &Settings) -> Option<String> {
    let record = HubRecord::load(&settings.home).ok()??;
    let bytes = streams::default_bytes(name, record.max_file_store)?;
    Some(words::bytes(bytes))
}
