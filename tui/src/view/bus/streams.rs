//! The tables: streams with how full they are, and the consumers with most waiting.

use fleet_contract::hub::{ConsumerStats, HubStats, StreamStats};
use ratatui::text::{Line, Span};

use super::{Sheet, bar, bytes};
use crate::text;
use crate::theme::Role;

/// From so much on a stream is filling, and from so much on nearly full.
const FILL: (f64, f64) = (0.8, 0.95);
/// From so many columns on tables show everything.
const WIDE: usize = 90;

/// Both of them.
pub(super) fn fill(sheet: &mut Sheet<'_>) {
    let Some((_, hub)) = sheet.hub else { return };
    streams(sheet, hub);
    consumers(sheet, hub);
}

/// A column's width, and whether it is aligned to the right.
type Column = (usize, bool);

fn table(sheet: &Sheet<'_>, columns: &[Column], cells: &[(String, Role)]) -> Line<'static> {
    let look = sheet.look();
    let mut spans = vec![Span::raw(" ")];
    for ((width, right), (text, role)) in columns.iter().zip(cells) {
        if *width == 0 {
            continue;
        }
        let text = text::clip(&text::escape(text), *width, look.ellipsis());
        let pad = text::pad(&text, *width);
        let style = look.style(*role);
        let cell = if *right { [pad, text] } else { [text, pad] };
        for part in cell {
            let blank = part.trim().is_empty();
            spans.push(Span::styled(
                part,
                if blank { Default::default() } else { style },
            ));
        }
        spans.push(Span::raw("  "));
    }
    Line::from(spans)
}

fn head(names: &[&str]) -> Vec<(String, Role)> {
    let cell = |name: &&str| ((*name).to_owned(), Role::Dim);
    names.iter().map(cell).collect()
}

fn streams(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let wide = sheet.width >= WIDE;
    let narrow = sheet.width < 60;
    let cells = match sheet.width {
        WIDE.. => 20,
        60.. => 10,
        _ => 8,
    };
    let columns = [
        (7, false),
        (cells, false),
        (5, true),
        (if narrow { 8 } else { 12 }, false),
        (if narrow { 0 } else { 20 }, true),
        (if narrow { 0 } else { 11 }, true),
        (if wide { 9 } else { 0 }, true),
        (if wide { 22 } else { 0 }, false),
    ];
    let names = [
        "STREAM",
        "FULL",
        "",
        "",
        "BYTES",
        "MESSAGES",
        "CONSUMERS",
        "SEQUENCES",
    ];
    let line = table(sheet, &columns, &head(&names));
    sheet.push(6, line);
    for stream in &hub.streams {
        let (leave, row) = stream_row(sheet, stream, cells);
        let line = table(sheet, &columns, &row);
        sheet.push(leave, line);
    }
}

fn stream_row(sheet: &Sheet<'_>, stream: &StreamStats, cells: usize) -> (u8, Vec<(String, Role)>) {
    let fill = stream.fill();
    let narrow = sheet.width < 60;
    let (word, role, leave) = match fill {
        f if f >= FILL.1 && stream.refuses && narrow => ("refuses", Role::Bad, 1),
        f if f >= FILL.1 && stream.refuses => ("refuses new", Role::Bad, 1),
        f if f >= FILL.1 && narrow => ("drops", Role::Warn, 2),
        f if f >= FILL.1 => ("drops oldest", Role::Warn, 2),
        f if f >= FILL.0 => ("filling", Role::Warn, 2),
        _ if sheet.is_old() => ("", Role::Dim, 6),
        _ => ("", Role::Plain, 6),
    };
    let percent = format!("{:.0} %", (fill * 100.0).floor());
    let filled = format!("{} of {}", bytes(stream.bytes), bytes(stream.max_bytes));
    let to = sheet.look().range();
    // An empty stream has a first sequence after its last.
    let sequences = match stream.last_seq {
        _ if stream.messages == 0 => String::new(),
        last => format!(
            "{}{to}{}",
            text::thousands(stream.first_seq),
            text::thousands(last)
        ),
    };
    let row = vec![
        (stream.name.clone(), role),
        (bar(sheet.look(), fill, cells), role),
        (percent, role),
        (word.to_owned(), role),
        (filled, role),
        (text::thousands(stream.messages), role),
        (text::thousands(stream.consumers), role),
        (sequences, Role::Dim),
    ];
    (leave, row)
}

fn consumers(sheet: &mut Sheet<'_>, hub: &HubStats) {
    let narrow = sheet.width < 60;
    let columns = [
        (8, false),
        (if narrow { 14 } else { 28 }, false),
        (9, true),
        (9, true),
        (if narrow { 0 } else { 9 }, true),
        (if narrow { 0 } else { 9 }, true),
    ];
    let names = ["CONSUMER", "", "BEHIND", "UNACKED", "AGAIN", "PULLS"];
    let lagging = hub.consumers.iter().filter(|c| c.lag() > 0).count();
    let (seen, total) = (
        text::thousands(hub.consumers_seen),
        text::thousands(hub.consumers_total),
    );
    if lagging == 0 {
        let all = format!("none behind, {seen} of {total} looked at");
        let why = "queues without a ticket are not";
        let parts = vec![(all, Role::Ok, 0), (why.to_owned(), Role::Dim, 1)];
        sheet.say(6, "consumers", parts);
        return;
    }
    let mut names = head(&names);
    names[1].0 = format!("{seen} of {total} looked at");
    let line = table(sheet, &columns, &names);
    sheet.push(6, line);
    for (consumer, rank) in hub.consumers.iter().zip(0u8..) {
        // The worst stays where little does.
        let leave = if rank == 0 { 4 } else { 9 };
        if consumer.lag() > 0 {
            let line = table(sheet, &columns, &consumer_row(sheet, consumer));
            sheet.push(leave, line);
        }
    }
}

fn consumer_row(sheet: &Sheet<'_>, consumer: &ConsumerStats) -> Vec<(String, Role)> {
    let role = if sheet.is_old() {
        Role::Dim
    } else {
        Role::Plain
    };
    let again = if consumer.redelivered > 0 {
        Role::Warn
    } else {
        role
    };
    vec![
        (consumer.stream.clone(), role),
        (consumer.name.clone(), role),
        (text::thousands(consumer.pending), role),
        (text::thousands(consumer.ack_pending), role),
        (text::thousands(consumer.redelivered), again),
        (text::thousands(consumer.waiting), role),
    ]
}
