//! How much of each machine is drawn: by how many there are and what fits. Pure, and shared: views
//! draw into these places, and keys move between them.

use ratatui::layout::Rect;

use super::roster::Group;
use crate::topology::Zoom;

/// Most machines that have a card each.
const CARDS: usize = 8;
/// Most machines that have a row each.
pub(super) const LANES: usize = 30;
/// Most machines that have a cell each: more are a blur, not a picture.
pub(super) const CELLS: usize = 1200;
/// Least size of a card with its frame.
pub(super) const CARD: (u16, u16) = (26, 3);
/// Most rows of a card.
pub(super) const CARD_ROWS: u16 = 5;
/// From so many columns on there is room for a hub, lanes and cards beside each other.
const CARDS_WIDE: u16 = 76;
/// Least width of a column of rows, where there are several columns.
const ROW: u16 = 38;

/// The zoom at which so many machines are best seen here. `sites` tells the sizes of the sites; it
/// is asked only where it matters.
pub(crate) fn fitting(machines: usize, area: Rect, sites: impl FnOnce() -> Vec<usize>) -> Zoom {
    if machines <= CARDS && cards_fit(machines, area) {
        return Zoom::Cards;
    }
    let rows = lanes(machines, area);
    if machines <= CARDS || (machines <= LANES && rows.room() >= machines) {
        return Zoom::Lanes;
    }
    match machines <= CELLS && grid(&sites(), area).whole {
        true => Zoom::Cells,
        false => Zoom::Sites,
    }
}

fn cards_fit(machines: usize, area: Rect) -> bool {
    let rows = usize::from(area.height / CARD.1);
    area.width >= CARDS_WIDE && machines <= rows
}

/// Rows, in as many columns as they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lanes {
    /// Whether the hub has a row above them.
    pub(crate) hub: bool,
    /// Rows of a column.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) columns: usize,
}

impl Lanes {
    /// How many machines there is room for.
    pub(crate) fn room(self) -> usize {
        self.rows * self.columns
    }
}

/// Where rows of so many machines go.
pub(crate) fn lanes(machines: usize, area: Rect) -> Lanes {
    let height = usize::from(area.height);
    // The worst machine comes before the hub, and all machines do where they just fit.
    let hub = height >= 3 && machines != height && area.width >= CARDS_WIDE / 2;
    let rows = height - usize::from(hub).min(height);
    let most = usize::from((area.width / ROW).max(1));
    let columns = machines.div_ceil(rows.max(1)).clamp(1, most);
    Lanes { hub, rows, columns }
}

/// Columns of what stands behind a site: how busy it is, and how far away.
pub(crate) const TAIL: u16 = 18;

/// A row of cells: machines `from..to` of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// The site.
    pub(crate) group: usize,
    /// Its first machine in this row.
    pub(crate) from: usize,
    /// The one after its last.
    pub(crate) to: usize,
}

/// Where the cells of sites go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Grid {
    /// Rows, from above.
    pub(crate) rows: Vec<Row>,
    /// Cells of a row.
    pub(crate) room: usize,
    /// Columns of a cell.
    pub(crate) step: u16,
    /// What stands before the cells, in columns.
    pub(crate) left: u16,
    /// What stands behind them.
    pub(crate) right: u16,
    /// Whether the hub has a row above them.
    pub(crate) hub: bool,
    /// Whether there is a line below them.
    pub(crate) line: bool,
    /// Whether every machine has a cell.
    pub(crate) whole: bool,
}

/// The widths of what stands before cells: trunk and rail, what flows on it, site, counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Cells of the rail; 0 for no trunk either.
    pub(crate) rail: u16,
    /// Columns of the rate.
    pub(crate) rate: u16,
    /// Columns of the site's name.
    pub(crate) site: u16,
    /// Columns of its counts.
    pub(crate) counts: u16,
}

impl Left {
    /// For this width.
    pub(crate) fn of(width: u16) -> Self {
        let (rail, rate, site, counts) = match width {
            110.. => (10, 8, 8, 10),
            90.. => (8, 8, 8, 8),
            56.. => (6, 0, 7, 8),
            30.. => (0, 0, 7, 8),
            16.. => (0, 0, 4, 0),
            _ => (0, 0, 0, 0),
        };
        Self {
            rail,
            rate,
            site,
            counts,
        }
    }

    /// All of them, with what is between them.
    pub(crate) fn width(self) -> u16 {
        let trunk = if self.rail > 0 { self.rail + 3 } else { 0 };
        let parts = [self.rate, self.site, self.counts];
        trunk
            + parts
                .into_iter()
                .filter(|p| *p > 0)
                .map(|p| p + 1)
                .sum::<u16>()
    }
}

/// Where cells of sites of these sizes go.
pub(crate) fn grid(sites: &[usize], area: Rect) -> Grid {
    let height = usize::from(area.height);
    let left = Left::of(area.width).width();
    let room = area.width.saturating_sub(left);
    let rows = |step: u16| -> (usize, usize) {
        let room = usize::from((room / step).max(1));
        let rows = sites.iter().map(|n| n.div_ceil(room).max(1)).sum();
        (room, rows)
    };
    // Cells apart are easier to count; cells side by side take half the room.
    let below = usize::from(height > 1);
    let step = if rows(2).1 + below <= height { 2 } else { 1 };
    let (room, wanted) = rows(step);
    let whole = wanted + below <= height;
    // Behind the longest row, where that leaves room.
    let longest = sites.iter().map(|n| n.min(&room)).max().unwrap_or(&0);
    let longest = u16::try_from(*longest)
        .unwrap_or(u16::MAX)
        .saturating_mul(step);
    let spare = area.width.saturating_sub(left.saturating_add(longest));
    let right = if spare > TAIL { TAIL } else { 0 };
    let mut grid = Grid {
        room,
        step,
        left,
        right,
        line: below > 0,
        hub: whole && wanted + below < height && area.width >= 56,
        whole,
        rows: Vec::new(),
    };
    let space = height.saturating_sub(below + usize::from(grid.hub));
    // Where not all fit, each site has its worst machines, and the worst sites come first.
    let each = if whole {
        usize::MAX
    } else {
        (space / sites.len().max(1)).max(1)
    };
    for (group, size) in sites.iter().enumerate() {
        for row in 0..size.div_ceil(room).min(each) {
            if grid.rows.len() >= space {
                return grid;
            }
            let from = row * room;
            let to = (from + room).min(*size);
            grid.rows.push(Row { group, from, to });
        }
    }
    grid
}

/// Every row that cells of sites of these sizes take, at so many cells a row.
pub(crate) fn rows(sizes: &[usize], room: usize) -> impl Iterator<Item = Row> {
    let room = room.max(1);
    sizes.iter().enumerate().flat_map(move |(group, size)| {
        (0..size.div_ceil(room)).map(move |row| Row {
            group,
            from: row * room,
            to: ((row + 1) * room).min(*size),
        })
    })
}

/// The sizes of sites.
pub(crate) fn sizes(groups: &[Group<'_>]) -> Vec<usize> {
    groups.iter().map(|g| g.machines.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(width: u16, height: u16) -> Rect {
        Rect::new(0, 0, width, height)
    }

    #[test]
    fn the_zoom_follows_how_many_there_are_and_what_fits() {
        let zoom = |machines: usize, width, height, sites: usize| {
            let sizes = vec![machines.div_ceil(sites); sites];
            fitting(machines, area(width, height), || sizes)
        };
        assert_eq!(zoom(3, 118, 14, 1), Zoom::Cards);
        assert_eq!(zoom(3, 78, 5, 1), Zoom::Lanes);
        assert_eq!(zoom(8, 198, 26, 1), Zoom::Cards);
        assert_eq!(zoom(8, 38, 2, 1), Zoom::Lanes);
        assert_eq!(zoom(30, 118, 14, 3), Zoom::Lanes);
        assert_eq!(zoom(30, 78, 5, 3), Zoom::Cells);
        assert_eq!(zoom(31, 198, 40, 3), Zoom::Cells);
        assert_eq!(zoom(300, 118, 14, 8), Zoom::Cells);
        assert_eq!(zoom(1000, 198, 26, 24), Zoom::Cells);
        assert_eq!(zoom(3000, 118, 14, 24), Zoom::Sites);
        assert_eq!(zoom(3000, 398, 90, 24), Zoom::Sites);
    }

    #[test]
    fn cells_are_all_there_or_each_site_shows_its_worst() {
        for (width, height) in [(118, 14), (78, 5), (38, 3), (10, 2), (4, 1), (1, 1), (0, 0)] {
            for sizes in [
                vec![],
                vec![1],
                vec![300],
                vec![38; 8],
                vec![125; 24],
                vec![0, 3],
            ] {
                let grid = grid(&sizes, area(width, height));
                assert!(grid.rows.len() <= usize::from(height));
                let shown: usize = grid.rows.iter().map(|r| r.to - r.from).sum();
                let all: usize = sizes.iter().sum();
                assert!(shown <= all && (!grid.whole || shown == all || height == 0));
                assert!(
                    all == 0 || height == 0 || shown > 0,
                    "{width}x{height} {sizes:?}"
                );
            }
        }
    }
}
