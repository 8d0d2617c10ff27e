//! `fleet config show`: every setting and where its value comes from.

use serde::Serialize;

use crate::config::keys::{KEYS, Table};
use crate::config::{Origin, Settings};
use crate::context::Context;
use crate::failure::Outcome;
use crate::output::style::Paint;
use crate::output::table::{Cell, Column};
use crate::output::{Answer, Look, table};

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
        rows.push(Row {
            key: key.name.to_owned(),
            value: setting
                .value
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| effective(key.name, settings)),
            origin: setting.origin.to_string(),
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
    Rows(rows)
}

/// What holds where nothing is set and the default depends on the machine.
fn effective(key: &str, settings: &Settings) -> Option<String> {
    match key {
        "machine" => Some(settings.machine().to_string()),
        "slots" => Some(settings.slots().to_string()),
        _ => None,
    }
}
