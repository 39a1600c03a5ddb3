//! What the engine itself costs: the constants of the predictions.

/// What the engine itself costs, ms; measured by `godwit bench strategies` on links that are faster than it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Costs {
    /// Before the freeze, whatever is moved.
    pub before: f64,
    /// Beginning to track, and the first look.
    pub tracking: f64,
    /// A round in which next to nothing is sent.
    pub round: f64,
    /// A round of pages that wait to be quiet, at least.
    pub quiet_round: f64,
    /// In the down time, whatever is moved.
    pub down: f64,
    /// In the down time, of a process that was tracked: besides.
    pub down_tracked: f64,
    /// After the resumption, until the source is ended.
    pub after: f64,
    /// A page that is sent while the process runs at the source.
    pub page_preparation: f64,
    /// A page that is sent in the down time.
    pub page_down: f64,
    /// A page that is found still to be true in the down time.
    pub page_confirmed: f64,
    /// A page that is pushed after the resumption.
    pub page_post: f64,
    /// A page that the source has, when it is ended.
    pub page_after: f64,
    /// Which part of a page still goes over a slow link when it is sent again and its last version is remembered: an expectation, since
    /// nobody has looked into the pages.
    pub delta_part: f64,
    /// How many pages are remembered at most.
    pub delta_pages: f64,
    /// Only over links on which a page takes longer than that.
    pub delta_from: f64,
    /// A page that is waited for, besides the way there and back.
    pub fault: f64,
    /// Before the freeze and in the down time: each thread.
    pub thread: [f64; 2],
    /// Each descriptor.
    pub descriptor: [f64; 2],
    /// Each mapping.
    pub mapping: [f64; 2],
    /// A thread, a descriptor and a mapping in a preparation, by round; the last in the down time behind one, besides.
    pub each_prepared: [f64; 4],
    /// Bytes of state in the down time: at least, and by thread, descriptor and mapping.
    pub state: [f64; 4],
    /// So many pages go as they are before it is known that packing pays.
    pub unpacked: f64,
    /// Bytes that may go before a page which is waited for.
    pub pushed_before_fault: f64,
    /// The first write to a page that is tracked.
    pub tracked_write: f64,
    /// The longest of many waits for a page while others are pushed, besides the way there and back.
    pub stall: f64,
    /// Which part of the time that the engine works before the freeze it takes from the process.
    pub taken: f64,
    /// The same after the resumption.
    pub taken_post: f64,
}

impl Default for Costs {
    fn default() -> Costs {
        Costs {
            before: 14.0,
            tracking: 1.5,
            round: 1.0,
            quiet_round: 20.0,
            down: 3.2,
            down_tracked: 0.5,
            after: 0.5,
            page_preparation: 0.003,
            page_down: 0.0008,
            page_confirmed: 0.000006,
            page_post: 0.004,
            page_after: 0.0004,
            delta_part: 0.25,
            delta_pages: 4096.0,
            delta_from: 0.01,
            fault: 0.085,
            thread: [0.1, 0.035],
            descriptor: [0.04, 0.017],
            mapping: [0.01, 0.0055],
            each_prepared: [0.05, 0.03, 0.02, 0.006],
            state: [6144.0, 80.0, 30.0, 10.0],
            unpacked: 256.0,
            pushed_before_fault: 32.0 * 1024.0,
            tracked_write: 0.001,
            stall: 12.0,
            taken: 0.15,
            taken_post: 0.3,
        }
    }
}
