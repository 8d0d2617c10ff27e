//! What the person chose about the drawing of the fleet. A part of the model; it knows nothing of
//! the fleet itself.

/// How much of each machine is drawn, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Zoom {
    /// A card each, with two lanes to the hub.
    Cards,
    /// A row each, with one lane.
    Lanes,
    /// A cell each, by site.
    Cells,
    /// A bar for each site.
    Sites,
}

impl Zoom {
    /// All, from near to far.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::Cards, Self::Lanes, Self::Cells, Self::Sites];

    /// One nearer.
    pub(crate) fn nearer(self) -> Self {
        match self {
            Self::Cards | Self::Lanes => Self::Cards,
            Self::Cells => Self::Lanes,
            Self::Sites => Self::Cells,
        }
    }

    /// One farther.
    pub(crate) fn farther(self) -> Self {
        match self {
            Self::Cards => Self::Lanes,
            Self::Lanes => Self::Cells,
            Self::Cells | Self::Sites => Self::Sites,
        }
    }

    /// In a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cards => "cards",
            Self::Lanes => "lanes",
            Self::Cells => "cells",
            Self::Sites => "sites",
        }
    }
}

/// What the person chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Topology {
    /// The zoom, where it is not the one that fits.
    pub(crate) zoom: Option<Zoom>,
}
