//! Which connections are open, and which one makes room for a new one.
//!
//! Anybody who reaches the port can open connections and say nothing. So those that have not shown a token
//! are few: when there are too many, the address that holds the most of them loses the one that has been
//! silent for longest. Those that have shown one have room of their own, of which one token has no more than
//! a share. No clock decides: the order of what happened on them does.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// In all.
    pub(crate) connections: usize,
    /// Of those that have shown no token.
    pub(crate) unknown: usize,
    /// Of those that have shown the same token.
    pub(crate) each: usize,
}

impl Room {
    /// Of a process that may have so many files open: half of them stay for the repository. A quarter of the
    /// rest is for whoever has shown no token, and half of it is all that one token can have.
    pub(crate) fn new(wanted: usize, files: u64) -> Self {
        let most = usize::try_from(files / 2).unwrap_or(usize::MAX);
        let connections = wanted.min(most).max(4);
        Self { connections, unknown: (connections / 4).max(2), each: (connections / 2).max(2) }
    }
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Table {
    room: Room,
    open: Mutex<Open>,
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// Counts what happens: the order of it is the age of connections.
    happened: u64,
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    /// Who asked last, by a token; none: nobody has shown one.
    holder: Option<Holder>,
    /// Requests, with their answers, that go on.
    requests: usize,
    last: u64,
    close: Arc<Notify>,
}

/// Who has shown a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// By its id.
    Token(String),
    /// Whoever reaches a daemon that asks for no tokens.
    Local,
}

/// A place in the table; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    table: Arc<Table>,
    number: u64,
    close: Arc<Notify>,
}

/// A request goes on, until its answer has been sent.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Place>);

impl Table {
    pub(crate) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, open: Mutex::default(), emptied: Notify::new() })
    }

    /// A place for a new connection. Another one may have to go for it; without any that may go there is
    /// none.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Place>> {
        let mut open = self.open();
        if open.unknown() >= self.room.unknown {
            open.let_one_go(|entry| entry.holder.is_none());
        }
        if open.entries.len() >= self.room.connections && !open.let_one_go(Entry::is_idle) {
            return None;
        }
        let close = Arc::new(Notify::new());
        let (number, last) = (open.next, open.tick());
        open.next += 1;
        let entry = Entry { peer: network_of(peer), holder: None, requests: 0, last, close: Arc::clone(&close) };
        open.entries.insert(number, entry);
        Some(Arc::new(Place { table: Arc::clone(self), number, close }))
    }

    /// The process has no file left for a new connection: the one that has been silent for longest goes.
    pub(crate) fn make_room(&self) {
        let mut open = self.open();
        if !open.let_one_go(|entry| entry.holder.is_none()) {
            open.let_one_go(Entry::is_idle);
        }
    }

    /// Closes all of them.
    pub(crate) fn close(&self) {
        self.open().entries.values().for_each(|entry| entry.close.notify_one());
    }

    /// How many there are, and how many of them have shown no token.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let open = self.open();
        (open.entries.len(), open.unknown())
    }

    /// Waits until none is open.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open().entries.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.happened += 1;
        self.happened
    }

    fn unknown(&self) -> usize {
        self.entries.values().filter(|entry| entry.holder.is_none()).count()
    }

    /// Closes one of those that may go, of the address that has the most of them: an idle one before one that
    /// is answered, and the one on which nothing has happened for longest.
    fn let_one_go(&mut self, may_go: impl Fn(&Entry) -> bool) -> bool {
        let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
        for entry in self.entries.values().filter(|entry| may_go(entry)) {
            *of_peer.entry(entry.peer).or_default() += 1;
        }
        let candidates = self.entries.iter().filter(|(_, entry)| may_go(entry));
        let chosen = candidates.min_by_key(|(_, entry)| {
            let share = of_peer.get(&entry.peer).copied().unwrap_or_default();
            (entry.holder.is_some(), std::cmp::Reverse(share), !entry.is_idle(), entry.last)
        });
        let Some(number) = chosen.map(|(number, _)| *number) else { return false };
        if let Some(entry) = self.entries.remove(&number) {
            entry.close.notify_one();
        }
        true
    }
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.requests == 0
    }
}

impl Place {
    /// Ends when the connection has to go.
    pub(crate) async fn closed(&self) {
        self.close.notified().await;
    }

    /// A request has come in.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.change(|entry| entry.requests += 1);
        Busy(Arc::clone(self))
    }

    /// Who asks. A token that has its share of connections loses an idle one of them for it; where all of
    /// them are at work, `false`: this one is one too many.
    pub(crate) fn set_holder(&self, holder: Option<Holder>) -> bool {
        self.change(|entry| entry.holder.clone_from(&holder));
        let Some(holder @ Holder::Token(_)) = holder else { return true };
        let mut open = self.table.open();
        let is_its = |entry: &Entry| entry.holder.as_ref() == Some(&holder);
        while open.entries.values().filter(|entry| is_its(entry)).count() > self.table.room.each {
            if !open.let_one_go(|entry| is_its(entry) && entry.is_idle()) {
                return false;
            }
        }
        true
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut open = self.table.open();
        let now = open.tick();
        if let Some(entry) = open.entries.get_mut(&self.number) {
            change(entry);
            entry.last = now;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|entry| entry.requests -= 1);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.table.open();
        open.entries.remove(&self.number);
        if open.entries.is_empty() {
            self.table.emptied.notify_waiters();
        }
    }
}

/// Whoever has one address of IPv6 has the other 2^64 of its network too.
fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whoever has shown a token, or comes from an address with few connections, stays. Method: a small
    //! table, step by step.

    use super::*;

    fn table(connections: usize, unknown: usize) -> Arc<Table> {
        Table::new(Room { connections, unknown, each: connections })
    }

    fn token(id: &str) -> Option<Holder> {
        Some(Holder::Token(id.into()))
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_open(table: &Table, place: &Place) -> bool {
        table.open().entries.contains_key(&place.number)
    }

    #[test]
    fn the_oldest_silent_one_without_a_token_makes_room() {
        let table = table(100, 3);
        let known = table.admit(peer(1)).unwrap();
        known.set_holder(token("a"));
        let places: Vec<_> = (0..3).map(|_| table.admit(peer(1)).unwrap()).collect();
        let busy = places[0].begin();
        let _fourth = table.admit(peer(1)).unwrap();
        assert!(is_open(&table, &places[0]) && !is_open(&table, &places[1]) && is_open(&table, &places[2]));
        drop(busy);
        assert!(is_open(&table, &known));
        assert_eq!(table.counts(), (4, 3));
    }

    #[test]
    fn an_address_with_many_loses_its_own() {
        let table = table(100, 4);
        let other = table.admit(peer(2)).unwrap();
        let flood: Vec<_> = (0..50).map(|_| table.admit(peer(1)).unwrap()).collect();
        assert!(is_open(&table, &other), "the first of all, and of another address");
        assert_eq!(flood.iter().filter(|place| is_open(&table, place)).count(), 3);
        let network = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        let flood: Vec<_> = (0..50).map(|last| table.admit(network(last)).unwrap()).collect();
        assert!(is_open(&table, &other), "a network of IPv6 counts as one address");
        drop(flood);
    }

    #[test]
    fn a_full_house_lets_idle_ones_go_and_keeps_those_that_work() {
        let table = table(4, 2);
        let known: Vec<_> = (0..4)
            .map(|_| table.admit(peer(1)).unwrap())
            .inspect(|place| assert!(place.set_holder(token("a"))))
            .collect();
        let busy: Vec<_> = known.iter().skip(1).map(Place::begin_for_tests).collect();
        let new = table.admit(peer(1)).unwrap();
        assert!(!is_open(&table, &known[0]) && known[1..].iter().all(|place| is_open(&table, place)));
        new.set_holder(token("a"));
        let _new = new.begin();
        assert!(table.admit(peer(1)).is_none(), "all of them work");
        drop(busy);
        assert!(table.admit(peer(1)).is_some());
    }

    #[test]
    fn one_token_has_its_share_and_no_more() {
        let table = Table::new(Room { connections: 8, unknown: 2, each: 4 });
        let mut busy = Vec::new();
        let mut greedy = Vec::new();
        for _ in 0..4 {
            let place = table.admit(peer(1)).unwrap();
            busy.push(place.begin());
            assert!(place.set_holder(token("a")));
            greedy.push(place);
        }
        let fifth = table.admit(peer(2)).unwrap();
        let _fifth = fifth.begin();
        assert!(!fifth.set_holder(token("a")), "all of them work");
        assert!(fifth.set_holder(token("b")), "another token has a share of its own");
        assert!(fifth.set_holder(Some(Holder::Local)) && fifth.set_holder(None));
        drop(busy.remove(0));
        assert!(fifth.set_holder(token("a")), "an idle one goes for it");
        assert!(!is_open(&table, &greedy[0]) && greedy[1..].iter().all(|place| is_open(&table, place)));
    }

    #[test]
    fn a_place_that_is_dropped_is_free() {
        let table = table(4, 2);
        drop(table.admit(peer(1)).unwrap());
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn half_of_the_files_stay_for_the_repository() {
        assert_eq!(Room::new(2048, 1 << 20), Room { connections: 2048, unknown: 512, each: 1024 });
        assert_eq!(Room::new(2048, 256), Room { connections: 128, unknown: 32, each: 64 });
        assert_eq!(Room::new(0, 0), Room { connections: 4, unknown: 2, each: 2 });
    }

    impl Place {
        fn begin_for_tests(self: &Arc<Self>) -> Busy {
            self.begin()
        }
    }
}
