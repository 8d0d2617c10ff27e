//! What a run does wrong on purpose, to show that the simulation sees it: for each rule of the
//! protocol somebody who does not keep it.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    None,

    // Tickets and claims.
    /// The ticket is acknowledged before the job is claimed.
    AckBeforeClaim,
    /// A ticket is named as its job, and the server takes the second for the first.
    TicketNamedAsJob,
    /// The claim is appended whatever came before it.
    ClaimWithoutCas,
    /// A ticket that the journal does not name is claimed.
    StaleTicketClaimed,
    /// A job that has ended is claimed.
    EndedJobClaimed,
    /// A ticket for another machine is taken.
    PinIgnored,
    /// A ticket is claimed that came before a sleep.
    SleptOnTicket,
    /// The claim does not say under which lease it was made.
    ClaimWithoutTerm,
    StartBeforeClaim,

    // Attempts.
    /// A refused append is taken for the loss of the attempt.
    NoReadOnRefusal,
    SecondAttemptBesideFirst,
    EndNotRepeated,
    EndWithoutCas,
    /// The operator's wish in the journal is not obeyed.
    CancelOverlooked,
    /// What operator and keeper ruled is not read.
    RulingsOverlooked,

    // Leases and fences.
    KeeperDoesNotWait,
    /// Its deafness counts as the machines' silence.
    DeafKeeper,
    /// It never takes a lease.
    KeeperTakesNothing,
    /// What ran under a lease is queued again without the lease being taken.
    QueuedAgainUnderLease,
    /// The lease is taken whatever its machine has renewed.
    LeaseTakenWithoutCas,
    NoFence,
    /// The fence closes when the lease is over.
    FenceWithoutMargin,
    /// The fence is counted from the answer to the renewal.
    FenceCountedFromAnswer,
    FenceByWallClock,
    FenceStopsInSleep,
    LeaseByWallClock,
    NothingHeld,
    HeldForEver,

    // The keeper's care.
    TicketsNotChecked,
    VoidsStay,
    RecordTimesDecide,
    TicketsOutliveJournal,
    PurgedAtOnce,
    /// A record is missed by the keeper's reader.
    KeeperMissesARecord,

    // Operators.
    CanceledWithoutCas,
    /// A spooled dispatch is another job each time that it is sent.
    SpooledAnew,
    /// A spooled dispatch is forgotten before the hub has it.
    SpoolForgottenFirst,

    // Readers.
    GapNotHealed,
    /// A reader goes on in a store that went back.
    OldEpochReadOn,

    // Events.
    EventsGoOnByOwnMark,
    EventsWithoutCas,
    EventsNotRepeated,
    EventSentBeforeWritten,

    // A damaged hub.
    SameEpoch,
    TokenWithoutEpoch,
    NotTold,
    NobodyAsked,
    /// The keeper goes by the job's policy in a new epoch, too.
    PolicyDecides,
    LeasesKept,
    TicketsNotJournaled,
    /// The hub vouches for a store that it has not looked at.
    VouchedUnseen,
    /// What agents say that they have seen counts for nothing.
    AgentsNotBelieved,
    /// A ticket of an earlier epoch is dropped though nothing else knows its job.
    OldTicketsDropped,
    /// An attempt of an earlier epoch that failed is repeated without asking.
    AdoptedGoesOn,
}

/// Those that take a rare meeting of faults to do harm: hundreds to thousands of seeds.
pub const RARE: &[Mutant] = &[
    Mutant::SleptOnTicket,
    Mutant::LeaseTakenWithoutCas,
    Mutant::FenceWithoutMargin,
    Mutant::FenceCountedFromAnswer,
    Mutant::FenceByWallClock,
    Mutant::FenceStopsInSleep,
    Mutant::TicketsOutliveJournal,
    Mutant::OldTicketsDropped,
    Mutant::AdoptedGoesOn,
    Mutant::LeasesKept,
];

/// Each mistake with the words by which it has to be caught.
pub const ALL: &[(Mutant, &[&str])] = &[
    (Mutant::AckBeforeClaim, &["lost"]),
    (Mutant::TicketNamedAsJob, &["stuck", "void", "off its pin"]),
    (Mutant::ClaimWithoutCas, &["void"]),
    (Mutant::StaleTicketClaimed, &["void", "is still there"]),
    (Mutant::EndedJobClaimed, &["void"]),
    (Mutant::PinIgnored, &["off its pin", "pinned to another"]),
    (
        Mutant::SleptOnTicket,
        &["comes to life", "lost", "overlap", "stuck"],
    ),
    (Mutant::ClaimWithoutTerm, &["stuck", "overlooked"]),
    (Mutant::StartBeforeClaim, &["unclaimed"]),
    (Mutant::NoReadOnRefusal, &["stuck", "overlooked"]),
    (Mutant::SecondAttemptBesideFirst, &["overlap"]),
    (Mutant::EndNotRepeated, &["stuck"]),
    (Mutant::EndWithoutCas, &["void"]),
    (Mutant::CancelOverlooked, &["overlooked", "void"]),
    (Mutant::RulingsOverlooked, &["stuck", "overlooked"]),
    (Mutant::KeeperDoesNotWait, &["overlap"]),
    (Mutant::DeafKeeper, &["deaf"]),
    (Mutant::KeeperTakesNothing, &["lease"]),
    (Mutant::QueuedAgainUnderLease, &["overlap", "does not end"]),
    (Mutant::LeaseTakenWithoutCas, &["overlap"]),
    (Mutant::NoFence, &["overlap"]),
    (Mutant::FenceWithoutMargin, &["overlap", "lost"]),
    (Mutant::FenceCountedFromAnswer, &["overlap"]),
    (Mutant::FenceByWallClock, &["overlap"]),
    (Mutant::FenceStopsInSleep, &["overlap"]),
    (
        Mutant::LeaseByWallClock,
        &["overlap", "deaf", "does not end"],
    ),
    (Mutant::NothingHeld, &["overlap"]),
    (Mutant::HeldForEver, &["stuck", "overlooked"]),
    (Mutant::TicketsNotChecked, &["stuck"]),
    (Mutant::VoidsStay, &["stuck"]),
    (Mutant::RecordTimesDecide, &["stuck"]),
    (Mutant::TicketsOutliveJournal, &["comes to life"]),
    (Mutant::PurgedAtOnce, &["comes to life"]),
    (Mutant::KeeperMissesARecord, &["keeper", "is Running"]),
    (Mutant::CanceledWithoutCas, &["void"]),
    (Mutant::SpooledAnew, &["spooled"]),
    (Mutant::SpoolForgottenFirst, &["spooled"]),
    (Mutant::GapNotHealed, &["projection"]),
    (Mutant::OldEpochReadOn, &["projection"]),
    (Mutant::EventsGoOnByOwnMark, &["spool"]),
    (Mutant::EventsWithoutCas, &["spool"]),
    (Mutant::EventsNotRepeated, &["spool"]),
    (Mutant::EventSentBeforeWritten, &["spool"]),
    (Mutant::SameEpoch, &["token", "stuck", "projection"]),
    (Mutant::TokenWithoutEpoch, &["token", "unclaimed"]),
    (Mutant::NotTold, &["stuck", "overlooked", "forgotten"]),
    (Mutant::NobodyAsked, &["overlap"]),
    (Mutant::PolicyDecides, &["forgotten"]),
    (Mutant::LeasesKept, &["stuck"]),
    (Mutant::TicketsNotJournaled, &["lost"]),
    (Mutant::OldTicketsDropped, &["lost"]),
    (Mutant::AdoptedGoesOn, &["overlap"]),
    (
        Mutant::AgentsNotBelieved,
        &["token", "projection", "lost", "stuck", "unclaimed", "void"],
    ),
    (
        Mutant::VouchedUnseen,
        &["token", "projection", "lost", "stuck", "unclaimed", "void"],
    ),
];
