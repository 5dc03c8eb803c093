//! Two links, and what lies between them.

use std::collections::VecDeque;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    frame: 64,
    window: 256,
    message: 1000,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn pair() -> (Link, Link) {
    (Link::new(1, LIMITS), Link::new(1, LIMITS))
}

fn frames(link: &mut Link, now: Duration) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.poll_frame(now)).collect()
}

fn messages(link: &mut Link) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| link.poll_message()).collect()
}

fn header(frame: &[u8]) -> Header {
    Header::decode(frame).expect("a link writes a header").0
}

fn payload(frame: &[u8]) -> &[u8] {
    &frame[OVERHEAD..]
}

/// Each hears all of the other until there is no more to say at this moment.
fn talk(one: &mut Link, other: &mut Link, now: Duration) -> usize {
    let mut count = 0;
    loop {
        let (there, back) = (frames(one, now), frames(other, now));
        if there.is_empty() && back.is_empty() {
            return count;
        }
        count += there.len() + back.len();
        for frame in there {
            other.receive(&frame, now).expect("a link's frame");
        }
        for frame in back {
            one.receive(&frame, now).expect("a link's frame");
        }
    }
}

#[test]
fn small_messages_share_a_frame() {
    let (mut one, mut other) = pair();
    for index in 0..5 {
        one.send(Lane::Data, vec![index; 2]);
    }
    let frames = frames(&mut one, ms(0));
    assert_eq!(frames.len(), 1);
    other.receive(&frames[0], ms(0)).unwrap();
    let sent: Vec<_> = (0..5).map(|index| vec![index; 2]).collect();
    assert_eq!(messages(&mut other), sent);
}

#[test]
fn control_goes_before_data_at_each_frame() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 150]);
    other
        .receive(&one.poll_frame(ms(0)).unwrap(), ms(0))
        .unwrap();
    one.send(Lane::Control, vec![2]);
    other
        .receive(&one.poll_frame(ms(0)).unwrap(), ms(0))
        .unwrap();
    assert_eq!(messages(&mut other), [vec![2]]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1; 150]]);
}

#[test]
fn a_full_window_of_data_does_not_hold_up_control() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 900]);
    let sent = frames(&mut one, ms(0));
    let bytes: usize = sent.iter().map(|frame| payload(frame).len()).sum();
    assert_eq!(bytes, LIMITS.window);
    assert_eq!(one.backlog(), 908);
    one.send(Lane::Control, vec![2]);
    let control = frames(&mut one, ms(0));
    assert_eq!(control.len(), 1);
    for frame in sent.iter().chain(&control) {
        other.receive(frame, ms(0)).unwrap();
    }
    assert_eq!(messages(&mut other), [vec![2]]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1; 900]]);
}

#[test]
fn an_idle_link_has_no_timer() {
    let (mut one, mut other) = pair();
    assert_eq!(one.next_timer(), None);
    assert_eq!(one.poll_frame(ms(0)), None);
    one.send(Lane::Control, vec![1]);
    assert_eq!(talk(&mut one, &mut other, ms(0)), 1);
    // The acknowledgement waits for a frame to go with.
    assert_eq!(other.next_timer(), Some(ms(20)));
    assert_eq!(other.poll_frame(ms(19)), None);
    assert_eq!(talk(&mut one, &mut other, ms(20)), 1);
    assert_eq!(one.backlog(), 0);
    assert_eq!((one.next_timer(), other.next_timer()), (None, None));
    assert_eq!(one.poll_frame(ms(10_000)), None);
    assert_eq!(other.poll_frame(ms(10_000)), None);
}

#[test]
fn an_acknowledgement_goes_with_what_is_sent() {
    let (mut one, mut other) = pair();
    one.send(Lane::Control, vec![1]);
    talk(&mut one, &mut other, ms(0));
    other.send(Lane::Data, vec![2]);
    assert_eq!(talk(&mut one, &mut other, ms(1)), 1);
    assert_eq!(one.backlog(), 0);
    assert_eq!(other.next_timer(), Some(ms(101)));
}

#[test]
fn a_quarter_of_the_window_is_acknowledged_at_once() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 63 - 8]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(one.backlog(), 63);
    one.send(Lane::Control, vec![]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(one.backlog(), 0);
}

#[test]
fn a_gap_is_told_at_once_and_once() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 248]);
    let sent = frames(&mut one, ms(0));
    assert_eq!(sent.len(), 4);
    assert!(!other.has_gap());
    let mut told = Vec::new();
    for frame in &sent[1..] {
        other.receive(frame, ms(1)).unwrap();
        told.extend(frames(&mut other, ms(1)));
    }
    assert!(other.has_gap());
    assert_eq!(told.len(), 1);
    one.receive(&told[0], ms(2)).unwrap();
    let again = frames(&mut one, ms(2));
    assert_eq!(again.len(), 4);
    // It is known already.
    one.receive(&told[0], ms(2)).unwrap();
    assert_eq!(frames(&mut one, ms(2)).len(), 0);
    for frame in &again {
        other.receive(frame, ms(3)).unwrap();
    }
    assert!(!other.has_gap());
    assert_eq!(messages(&mut other), [vec![1; 248]]);
}

#[test]
fn a_frame_of_one_lane_shows_a_gap_in_the_other() {
    let (mut one, mut other) = pair();
    one.send(Lane::Control, vec![1]);
    one.poll_frame(ms(0)).expect("it gets lost");
    one.send(Lane::Data, vec![2]);
    let sent = one.poll_frame(ms(0)).unwrap();
    other.receive(&sent, ms(0)).unwrap();
    assert!(other.has_gap());
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1], vec![2]]);
    assert!(!other.has_gap());
}

#[test]
fn data_does_not_overtake_control() {
    let (mut one, mut other) = pair();
    one.send(Lane::Control, vec![1]);
    one.poll_frame(ms(0)).expect("it gets lost");
    one.send(Lane::Data, vec![2]);
    let data = one.poll_frame(ms(0)).unwrap();
    other.receive(&data, ms(0)).unwrap();
    assert_eq!(messages(&mut other), [[0_u8; 0]; 0]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1], vec![2]]);
    // Nor while the window of control is full.
    one.send(Lane::Control, vec![3; 300]);
    one.send(Lane::Data, vec![4]);
    for frame in frames(&mut one, ms(0)) {
        assert_eq!(header(&frame).lane, Lane::Control);
        other.receive(&frame, ms(0)).unwrap();
    }
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![3; 300], vec![4]]);
}

#[test]
fn what_is_lost_while_it_goes_again_goes_again() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 100]);
    for _ in 0..5 {
        let sent = frames(&mut one, ms(0));
        assert_eq!(sent.len(), 2);
        other.receive(&sent[1], ms(0)).unwrap();
        let told = frames(&mut other, ms(0));
        assert_eq!(told.len(), 1);
        one.receive(&told[0], ms(0)).unwrap();
    }
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1; 100]]);
}

#[test]
fn who_waits_for_an_acknowledgement_asks() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1]);
    one.poll_frame(ms(0)).expect("it gets lost");
    let mut asked = Vec::new();
    for _ in 0..6 {
        let at = one.next_timer().expect("something is under way");
        assert_eq!(one.poll_frame(at - ms(1)), None);
        let sent = frames(&mut one, at);
        assert_eq!(sent.len(), 1);
        assert!(header(&sent[0]).asks && payload(&sent[0]).is_empty());
        asked.push(at);
    }
    assert_eq!(asked, [100, 300, 700, 1500, 2500, 3500].map(ms));
    assert_eq!(one.asked_since(), Some(ms(100)));
    let at = one.next_timer().unwrap();
    talk(&mut one, &mut other, at);
    assert_eq!(messages(&mut other), [vec![1]]);
    talk(&mut one, &mut other, at + ms(20));
    assert_eq!((one.next_timer(), other.next_timer()), (None, None));
    // The next time it is soon again.
    one.send(Lane::Data, vec![1]);
    one.poll_frame(ms(9000)).unwrap();
    assert_eq!(one.next_timer(), Some(ms(9100)));
}

#[test]
fn a_word_of_a_gap_that_is_lost_is_said_again() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1]);
    one.poll_frame(ms(0)).expect("it gets lost");
    for at in [100, 300] {
        let asks = one.poll_frame(ms(at)).unwrap();
        other.receive(&asks, ms(at)).unwrap();
        assert!(other.poll_frame(ms(at)).is_some(), "it gets lost");
    }
    talk(&mut one, &mut other, ms(700));
    assert_eq!(messages(&mut other), [vec![1]]);
}

#[test]
fn an_acknowledgement_that_is_lost_is_said_again() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1]);
    talk(&mut one, &mut other, ms(0));
    other.poll_frame(ms(20)).expect("it gets lost");
    assert_eq!(other.next_timer(), None);
    assert_eq!(talk(&mut one, &mut other, ms(100)), 2);
    assert_eq!((one.backlog(), one.next_timer()), (0, None));
    // So it is if everything goes again.
    one.send(Lane::Data, vec![2]);
    talk(&mut one, &mut other, ms(200));
    other.poll_frame(ms(220)).expect("it gets lost");
    one.reconnected();
    talk(&mut one, &mut other, ms(230));
    talk(&mut one, &mut other, ms(250));
    assert_eq!((one.backlog(), one.next_timer()), (0, None));
    assert_eq!(messages(&mut other), [vec![1], vec![2]]);
}

#[test]
fn all_goes_again_after_a_new_connection() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 100]);
    one.send(Lane::Control, vec![2]);
    assert_eq!(frames(&mut one, ms(0)).len(), 3);
    one.send(Lane::Control, vec![3]);
    one.reconnected();
    talk(&mut one, &mut other, ms(5));
    assert_eq!(messages(&mut other), [vec![2], vec![3], vec![1; 100]]);
    // Nothing is under way, so nothing goes.
    talk(&mut one, &mut other, ms(25));
    one.reconnected();
    other.reconnected();
    assert_eq!(talk(&mut one, &mut other, ms(30)), 0);
}

#[test]
fn what_is_acknowledged_after_going_back_does_not_go_again() {
    let (mut one, mut other) = pair();
    one.send(Lane::Data, vec![1; 100]);
    one.send(Lane::Data, vec![2; 20]);
    let sent = frames(&mut one, ms(0));
    for frame in &sent {
        other.receive(frame, ms(0)).unwrap();
    }
    let acknowledgement = other.poll_frame(ms(20)).unwrap();
    one.reconnected();
    one.receive(&acknowledgement, ms(21)).unwrap();
    one.send(Lane::Data, vec![3]);
    let again = frames(&mut one, ms(22));
    assert_eq!(again.len(), 1);
    assert_eq!(payload(&again[0]).len(), 9);
}

#[test]
fn a_question_is_answered_at_once() {
    let (mut one, mut other) = pair();
    assert_eq!((one.heard(), one.echo()), (None, None));
    one.ask();
    let asks = frames(&mut one, ms(1000));
    assert_eq!(asks.len(), 1);
    one.ask();
    assert_eq!(frames(&mut one, ms(1050)).len(), 1);
    assert_eq!(one.asked_since(), Some(ms(1000)));
    other.receive(&asks[0], ms(7)).unwrap();
    assert_eq!(other.heard(), Some(ms(7)));
    let answer = frames(&mut other, ms(8));
    assert_eq!(answer.len(), 1);
    one.receive(&answer[0], ms(1100)).unwrap();
    assert_eq!(one.asked_since(), None);
    assert_eq!(one.heard(), Some(ms(1100)));
    assert_eq!(one.echo(), Some(ms(1000)));
    assert_eq!(other.echo(), None);
    assert_eq!(one.poll_frame(ms(1100)), None);
    assert_eq!(one.next_timer(), None);
}

#[test]
fn an_old_frame_takes_no_echo_back() {
    let (mut one, mut other) = pair();
    let mut answers = Vec::new();
    for at in [1, 2] {
        one.ask();
        let asks = one.poll_frame(ms(at)).unwrap();
        other.receive(&asks, ms(at)).unwrap();
        answers.push((asks, other.poll_frame(ms(at)).unwrap()));
    }
    let [(early_asks, early), (_, late)] = &answers[..] else {
        panic!("there are two");
    };
    one.receive(late, ms(3)).unwrap();
    one.receive(early, ms(4)).unwrap();
    assert_eq!(one.echo(), Some(ms(2)));
    other.receive(early_asks, ms(5)).unwrap();
    let answer = other.poll_frame(ms(5)).unwrap();
    assert_eq!(header(&answer).echo, Some(2_000_000));
}

#[test]
fn frames_that_no_link_writes_are_refused() {
    let (mut one, mut other) = pair();
    one.send(Lane::Control, vec![1; 10]);
    let sent = one.poll_frame(ms(3)).unwrap();
    let forged = |link: &mut Link, change: fn(&mut Header), payload: &[u8]| {
        let mut header = header(&sent);
        change(&mut header);
        let mut frame = Vec::new();
        header.encode(&mut frame);
        frame.extend_from_slice(payload);
        link.receive(&frame, ms(4))
    };
    let mut refused = |change, payload: &[u8]| {
        let result = forged(&mut other, change, payload);
        assert_eq!(messages(&mut other), Vec::<Vec<u8>>::new());
        result.expect_err("it is refused")
    };
    assert_eq!(refused(|h| h.session = 2, &[]), Malformed::Session);
    assert_eq!(refused(|h| h.echo = Some(1), &[]), Malformed::Echo);
    let acknowledges: fn(&mut Header) = |h| h.lanes[1].taken = 1;
    assert_eq!(refused(acknowledges, &[]), Malformed::Acknowledgement);
    let far: fn(&mut Header) = |h| h.lanes[0].at = u64::MAX;
    assert_eq!(refused(far, &[0; 8]), Malformed::Position);
    assert_eq!(refused(|_| {}, &[0; 7]), Malformed::Length);
    assert_eq!(refused(|_| {}, &1001_u64.to_le_bytes()), Malformed::Message);
    assert_eq!(refused(|_| {}, &[255; 8]), Malformed::Message);
    let in_length: fn(&mut Header) = |h| {
        h.lanes[0].taken = 3;
        h.clock = 0;
    };
    assert_eq!(
        forged(&mut one, in_length, &[]),
        Err(Malformed::Acknowledgement)
    );
    one.reconnected();
    // Nothing of it has changed what is right.
    talk(&mut one, &mut other, ms(5));
    assert_eq!(messages(&mut other), [vec![1; 10]]);
}

#[test]
fn limits_that_let_nothing_through_are_raised() {
    let limits = Limits {
        frame: 0,
        window: 0,
        message: 100,
    };
    let (mut one, mut other) = (Link::new(1, limits), Link::new(1, limits));
    one.send(Lane::Data, vec![1; 100]);
    talk(&mut one, &mut other, ms(0));
    assert_eq!(messages(&mut other), [vec![1; 100]]);
}

/// What may happen to two links.
#[derive(Debug, Clone)]
enum Step {
    Send(usize, Lane, usize),
    Ask(usize),
    /// The side polls.
    Poll(usize),
    /// The next frame to this side arrives.
    Deliver(usize),
    /// It is lost.
    Lose(usize),
    /// It arrives, and comes again later.
    Repeat(usize),
    /// One that was repeated comes again.
    Again(usize, prop::sample::Index),
    /// This side's connection breaks: what is under way from and to it is lost.
    Cut(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = prop_oneof![Just(Lane::Control), Just(Lane::Data)];
    let size = prop_oneof![4 => 0..20_usize, 2 => 40..80_usize, 1 => 200..1000_usize];
    let side = || 0..2_usize;
    let step = prop_oneof![
        8 => (side(), lane, size).prop_map(|(side, lane, size)| Step::Send(side, lane, size)),
        1 => side().prop_map(Step::Ask),
        10 => side().prop_map(Step::Poll),
        16 => side().prop_map(Step::Deliver),
        3 => side().prop_map(Step::Lose),
        2 => side().prop_map(Step::Repeat),
        2 => (side(), any::<prop::sample::Index>()).prop_map(|(side, at)| Step::Again(side, at)),
        1 => side().prop_map(Step::Cut),
        3 => (0..150_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..200)
}

/// Two links, what is under way between them, and what must hold.
struct Network {
    now: Duration,
    sides: [Side; 2],
}

struct Side {
    link: Link,
    /// Its clock is that of the network and so much.
    clock_offset: Duration,
    /// Frames to it.
    arriving: VecDeque<Vec<u8>>,
    repeated: Vec<Vec<u8>>,
    /// What it has sent, and got, in each lane.
    sent: [Vec<Vec<u8>>; 2],
    got: [Vec<Vec<u8>>; 2],
    /// How many messages of control it had sent before each one of data.
    behind: Vec<usize>,
    /// How much of each lane it knows to have arrived.
    acknowledged: [u64; 2],
    /// The latest clock of the other side's in a frame that has arrived here.
    their_clock: Option<u64>,
}

impl Network {
    fn new() -> Self {
        let side = |clock_offset| Side {
            link: Link::new(9, LIMITS),
            clock_offset,
            arriving: VecDeque::new(),
            repeated: Vec::new(),
            sent: Default::default(),
            got: Default::default(),
            behind: Vec::new(),
            acknowledged: [0; 2],
            their_clock: None,
        };
        Self {
            now: ms(0),
            sides: [side(ms(0)), side(ms(123_456))],
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Send(side, lane, size) => {
                let side = &mut self.sides[side];
                let index = lane.index();
                let mut message = vec![side.sent[index].len() as u8; size];
                if let Some(first) = message.first_mut() {
                    *first = index as u8;
                }
                side.sent[index].push(message.clone());
                if lane == Lane::Data {
                    side.behind.push(side.sent[Lane::Control.index()].len());
                }
                side.link.send(lane, message);
            }
            Step::Ask(side) => self.sides[side].link.ask(),
            Step::Poll(side) => self.poll(side),
            Step::Deliver(side) => {
                if let Some(frame) = self.sides[side].arriving.pop_front() {
                    self.arrive(side, &frame);
                }
            }
            Step::Lose(side) => {
                self.sides[side].arriving.pop_front();
            }
            Step::Repeat(side) => {
                if let Some(frame) = self.sides[side].arriving.pop_front() {
                    self.arrive(side, &frame);
                    self.sides[side].repeated.push(frame);
                }
            }
            Step::Again(side, at) => {
                if !self.sides[side].repeated.is_empty() {
                    let frame = at.get(&self.sides[side].repeated).clone();
                    self.arrive(side, &frame);
                }
            }
            Step::Cut(side) => {
                for side in &mut self.sides {
                    side.arriving.clear();
                }
                self.sides[side].link.reconnected();
            }
            Step::Pass(time) => self.now += ms(time),
        }
    }

    fn poll(&mut self, side: usize) {
        let [one, other] = &mut self.sides;
        let (from, to) = if side == 0 {
            (one, other)
        } else {
            (other, one)
        };
        let now = self.now + from.clock_offset;
        while let Some(frame) = from.link.poll_frame(now) {
            let header = header(&frame);
            let state = header.lanes[header.lane.index()];
            let payload = payload(&frame);
            assert!(payload.len() <= LIMITS.frame);
            let ahead = state.at + payload.len() as u64 - from.acknowledged[header.lane.index()];
            assert!(ahead <= LIMITS.window as u64, "the window is kept");
            to.arriving.push_back(frame);
        }
        assert!(from.link.next_timer().is_none_or(|at| at > now));
    }

    fn arrive(&mut self, side: usize, frame: &[u8]) {
        let header = header(frame);
        let to = &mut self.sides[side];
        let now = self.now + to.clock_offset;
        to.link.receive(frame, now).expect("a link's frame");
        to.their_clock = to.their_clock.max(Some(header.clock));
        for (known, state) in to.acknowledged.iter_mut().zip(header.lanes) {
            *known = state.taken.max(*known);
        }
        // Not by the link's `poll_message`: which lane it is of does not show there.
        for (inbound, got) in to.link.inbound.iter_mut().zip(&mut to.got) {
            got.extend(std::iter::from_fn(|| inbound.poll_message()));
        }
        self.check();
    }

    fn check(&self) {
        for side in 0..2 {
            let echo = self.sides[side].link.echo().map(to_nanos);
            assert!(echo <= self.sides[1 - side].their_clock);
            assert_eq!(
                self.sides[side].link.heard().is_some(),
                self.sides[side].their_clock.is_some()
            );
            let [control, data] = &self.sides[side].got;
            if let Some(last) = data.len().checked_sub(1) {
                let behind = self.sides[1 - side].behind[last];
                assert!(control.len() >= behind, "data overtakes control");
            }
        }
    }

    /// From now on nothing is lost: everything arrives, and then there is silence.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for side in 0..2 {
                self.poll(side);
            }
            let mut is_silent = true;
            for side in 0..2 {
                while let Some(frame) = self.sides[side].arriving.pop_front() {
                    is_silent = false;
                    self.arrive(side, &frame);
                }
            }
            if is_silent {
                let timers = self.sides.iter().filter_map(|side| {
                    let at = side.link.next_timer()?;
                    Some(at - side.clock_offset)
                });
                let Some(next) = timers.min() else {
                    return;
                };
                self.now = next;
            }
        }
        panic!("it never ends");
    }
}

proptest! {
    #[test]
    fn all_messages_arrive_once_and_in_order(steps in steps()) {
        let mut network = Network::new();
        for step in &steps {
            network.run(step);
        }
        network.settle();
        for side in 0..2 {
            let Side { link, got, .. } = &network.sides[side];
            prop_assert_eq!(got, &network.sides[1 - side].sent);
            prop_assert_eq!(link.backlog(), 0);
            prop_assert!(!link.has_gap());
        }
        // And an answer tells what was heard.
        for side in 0..2 {
            network.sides[side].link.ask();
            network.settle();
            let asked = network.now + network.sides[side].clock_offset;
            prop_assert_eq!(network.sides[side].link.echo(), Some(asked));
            prop_assert_eq!(network.sides[side].link.asked_since(), None);
        }
    }

    #[test]
    fn any_bytes_are_survived(
        steps in steps(),
        rubbish in prop::collection::vec((0..2_usize, forgeries()), 1..20),
    ) {
        let mut network = Network::new();
        let mut rubbish = rubbish.iter().cycle();
        let mut all = vec![Vec::new()];
        for step in &steps {
            match step {
                Step::Deliver(_) | Step::Lose(_) | Step::Repeat(_) | Step::Again(..) => {
                    let (side, forgery) = rubbish.next().expect("there is some");
                    let Side { link, arriving, .. } = &mut network.sides[*side];
                    let frame = arriving.pop_front().unwrap_or_else(|| all[all.len() / 2].clone());
                    let forged = forgery.of(&frame);
                    let _ = link.receive(&forged, network.now);
                    let _ = messages(link);
                    all.push(frame);
                }
                Step::Poll(side) => {
                    for frame in frames(&mut network.sides[*side].link, network.now) {
                        assert!(frame.len() <= OVERHEAD + LIMITS.frame);
                        network.sides[1 - side].arriving.push_back(frame);
                    }
                }
                step => network.run(step),
            }
        }
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone)]
struct Forgery {
    /// Others in its place, if any.
    bytes: Option<Vec<u8>>,
    /// Bytes that become others.
    changes: Vec<(prop::sample::Index, u8)>,
    /// A number that comes in the place of another.
    number: Option<(usize, u64)>,
    /// So many bytes are left.
    cut: Option<prop::sample::Index>,
}

fn forgeries() -> impl Strategy<Value = Forgery> {
    let number = prop_oneof![
        0..1200_u64,
        Just(u64::MAX),
        (u64::MAX - 300)..u64::MAX,
        any::<u64>()
    ];
    (
        prop::option::weighted(0.1, any::<Vec<u8>>()),
        prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..3),
        prop::option::weighted(0.7, (5..OVERHEAD + 8, number)),
        prop::option::weighted(0.1, any::<prop::sample::Index>()),
    )
        .prop_map(|(bytes, changes, number, cut)| Forgery {
            bytes,
            changes,
            number,
            cut,
        })
}

impl Forgery {
    fn of(&self, frame: &[u8]) -> Vec<u8> {
        let mut frame = self.bytes.as_deref().unwrap_or(frame).to_vec();
        if let Some((at, number)) = self.number
            && let Some(place) = frame.get_mut(at..at + 8)
        {
            place.copy_from_slice(&number.to_le_bytes());
        }
        if !frame.is_empty() {
            for (at, byte) in &self.changes {
                let at = at.index(frame.len());
                frame[at] = *byte;
            }
        }
        if let Some(cut) = &self.cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        frame
    }
}

#[test]
#[ignore = "it measures: run it in release"]
fn cost() {
    let limits = Limits {
        frame: 512 << 10,
        window: 8 << 20,
        message: 1 << 30,
    };
    let (mut one, mut other) = (Link::new(1, limits), Link::new(1, limits));
    for size in [16, 64, 256] {
        for batch in [10, 100, 1000] {
            let count = 1_000_000 / batch;
            let begin = Instant::now();
            for _ in 0..count {
                for index in 0..batch {
                    one.send(Lane::Data, vec![index as u8; size]);
                }
                exchange(&mut one, &mut other);
            }
            let each = begin.elapsed().as_nanos() / (count * batch) as u128;
            println!("{size} bytes, {batch} at once: {each} ns for each message");
        }
    }
    let mut message = vec![7; 16 << 20];
    let begin = Instant::now();
    let count = 64;
    for _ in 0..count {
        one.send(Lane::Data, message);
        message = exchange(&mut one, &mut other).expect("it has arrived");
    }
    let rate = (count * message.len()) as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("16 MiB: {rate:.0} MB/s");
}

/// Everything goes there, and acknowledgements come back. Gives the last message.
fn exchange(one: &mut Link, other: &mut Link) -> Option<Vec<u8>> {
    let now = ms(0);
    let mut last = None;
    loop {
        let mut is_silent = true;
        while let Some(frame) = one.poll_frame(now) {
            is_silent = false;
            other.receive(&frame, now).expect("a link's frame");
            while let Some(message) = other.poll_message() {
                last = Some(message);
            }
            if let Some(frame) = other.poll_frame(now) {
                one.receive(&frame, now).expect("a link's frame");
            }
        }
        if is_silent {
            return last;
        }
    }
}
