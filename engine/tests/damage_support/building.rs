//! How the repository is made.

use super::*;

pub(super) fn take(context: &Context, app: &str, name: &str, path: &Path) -> copal_engine::Result<()> {
    let sources = vec![SourceRequest { label: String::new(), path: path.to_owned() }];
    let request = CreateRequest { name: name.into(), app: app.into(), sources, ..CreateRequest::default() };
    create(context, &request).map(drop)
}

pub(super) struct Building {
    pub(super) kind: Kind,
    pub(super) folder: TempDir,
    pub(super) memory: MemoryBackend,
    pub(super) context: Context,
    pub(super) older: BTreeMap<Victim, Vec<(ObjectName, Vec<u8>)>>,
}

impl Building {
    pub(super) fn new(kind: Kind) -> Self {
        let folder = TempDir::new().unwrap();
        let memory = MemoryBackend::new();
        let options = InitOptions {
            parameters: Parameters { pack_bytes_max: 1 << 20, ..Parameters::default() },
            suite: CipherSuite::Aes256Gcm,
            stretch: StretchCost::default(),
            slot_label: "first".into(),
            created_seconds: 0,
        };
        let repository =
            Repository::init(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(1)), &key(KEYS[0]), &options)
                .unwrap();
        let context = context_of(repository, folder.path(), Some(folder.path().join("cache")));
        Self { kind, folder, memory, context, older: BTreeMap::new() }
    }

    pub(super) fn names(&self, kind: ObjectKind) -> BTreeSet<ObjectName> {
        let names = self.memory.names(kind).unwrap().into_iter();
        names.filter(|name| !name.name().ends_with("-retired")).collect()
    }

    pub(super) fn bytes(&self, name: &ObjectName) -> Vec<u8> {
        self.memory.read(name, u64::MAX).unwrap()
    }

    pub(super) fn remember(&mut self, victim: Victim, names: impl IntoIterator<Item = ObjectName>) {
        for name in names {
            let bytes = self.bytes(&name);
            self.older.entry(victim).or_default().push((name, bytes));
        }
    }

    /// Begins a key epoch, where the keys are rotated.
    fn rotate(&mut self) {
        if self.kind == Kind::RotatedTwice {
            let rotated = self.context.repository.rotate_keys(&key(KEYS[0]), StretchCost::default(), 5).unwrap();
            assert_eq!(rotated.replaced, None);
        }
    }

    /// Names in `keys/` whose end is this.
    fn keys_ending(&self, end: &str) -> Vec<ObjectName> {
        let names = self.names(ObjectKind::KeySlot).into_iter();
        names.filter(|name| name.name().ends_with(end)).collect()
    }

    /// The objects of the rosters that stand there.
    fn rosters(&self) -> Vec<ObjectName> {
        let names = self.names(ObjectKind::KeySlot).into_iter();
        names.filter(|name| name.name().starts_with("roster-")).collect()
    }

    /// Writes files, the seed of each beside its path.
    pub(super) fn plant(&self, tree: &str, files: &[(&str, u64, usize)]) {
        for (path, seed, bytes) in files {
            let path = self.folder.path().join(tree).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, noise(*seed, *bytes)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(30));
    }

    /// Collects while a session lives, so that a sentence waits; returns what is condemned and the session.
    pub(super) fn condemn(&self) -> (BTreeSet<ObjectName>, Session) {
        let witness = Session::begin(&self.context.repository).unwrap();
        assert!(collect_garbage(&self.context, false).unwrap().packs_waiting > 0);
        (self.names(ObjectKind::Condemned), witness)
    }

    pub(super) fn build(mut self) -> Template {
        let tree = self.folder.path().join("tree");
        let slot_of = |names: &BTreeSet<ObjectName>, before: &BTreeSet<ObjectName>| {
            names.difference(before).next().unwrap().clone()
        };
        let stretch = StretchCost::default();
        let first_slot = self.names(ObjectKind::KeySlot);
        self.context.repository.add_key_slot(&key(KEYS[1]), "second", stretch, 1).unwrap();
        let two_slots = self.names(ObjectKind::KeySlot);
        let old = self.context.repository.add_key_slot(&key(OLD_KEY), "old", stretch, 2).unwrap();
        let old_slot = slot_of(&self.names(ObjectKind::KeySlot), &two_slots);
        self.remember(Victim::KeySlot, [old_slot]);

        // Two snapshots that will be gone, with packs, nodes, fragments and sentences of their own.
        let before = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        self.plant("tree", &[("gone", 1, 600_000), ("folder/gone too", 2, 30_000)]);
        take(&self.context, "", "gone", &tree).unwrap();
        let after = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        let root = self.names(ObjectKind::Root);
        self.remember(Victim::Root, root);
        let packs: Vec<_> = after[0].difference(&before[0]).cloned().collect();
        for pack in packs {
            let description = describe(&self.context.repository, &pack).unwrap();
            let is_data = description.fields.contains(&("record kind".into(), "Data".into()));
            self.remember(if is_data { Victim::DataPack } else { Victim::NodePack }, [pack]);
        }
        let fragments: Vec<_> = after[1].difference(&before[1]).cloned().collect();
        self.remember(Victim::Fragment, fragments);
        let older_cache = {
            Catalogue::load(&self.context).unwrap();
            fs::read(cache_file(&self.folder.path().join("cache"))).unwrap()
        };
        fs::remove_dir_all(&tree).unwrap();
        self.plant("elsewhere", &[("waste", 3, 500_000)]);
        take(&self.context, "waste", "waste", &self.folder.path().join("elsewhere")).unwrap();
        delete(&self.context, &["gone".into()]).unwrap();
        let (sentence, witness) = self.condemn();
        self.remember(Victim::Condemned, sentence);
        let sessions = self.names(ObjectKind::Session);
        self.remember(Victim::Session, sessions);
        witness.end().unwrap();
        collect_garbage(&self.context, false).unwrap();
        assert_eq!(self.names(ObjectKind::Condemned).len(), 0);

        let before_two = self.names(ObjectKind::Pack);
        // What is damaged belongs to these two; the second is a change of the first.
        let steady = ("folder/steady", 10, 20_000);
        self.plant("tree", &[steady, ("large", 11, 900_000), ("folder/one", 12, 5_000), ("folder/two", 13, 70_000)]);
        take(&self.context, "", "first", &tree).unwrap();
        let first = files_of(&tree);
        self.rotate();
        // The grant of a slot that is removed comes back as an older one.
        let old_grants = self.keys_ending(&format!("{old}-00000001"));
        for victim in [Victim::NewGrant, Victim::OldGrant] {
            self.remember(victim, old_grants.clone());
        }
        let old_rosters = self.rosters();
        for victim in [Victim::Roster, Victim::Rosters] {
            self.remember(victim, old_rosters.clone());
        }
        self.context.repository.remove_key_slot(old, 3).unwrap();
        let mut large = noise(11, 900_000);
        large[450_000..450_100].fill(1);
        fs::write(tree.join("large"), large).unwrap();
        fs::remove_file(tree.join("folder/one")).unwrap();
        self.plant("tree", &[("new", 14, 300_000)]);
        take(&self.context, "", "second", &tree).unwrap();
        let second = files_of(&tree);
        let of_two: BTreeSet<ObjectName> = self.names(ObjectKind::Pack).difference(&before_two).cloned().collect();
        relabel(&self.context, "first", &[("a".into(), "1".into())], &[], None).unwrap();
        let old_label = self.names(ObjectKind::Label);
        self.remember(Victim::Label, old_label);
        relabel(&self.context, "first", &[], &[], Some(true)).unwrap();
        relabel(&self.context, "second", &[], &[], Some(true)).unwrap();

        self.rotate();
        // A sentence that waits for a session whose process died.
        delete(&self.context, &["waste/waste".into()]).unwrap();
        let (_, witness) = self.condemn();
        let before = [ObjectKind::Pack, ObjectKind::Index].map(|kind| self.names(kind));
        self.plant("other", &[("alone", 20, 200_000), ("folder/beside", 21, 3_000)]);
        let other = self.folder.path().join("other");
        take(&self.context, "other", "alone", &other).unwrap();
        let alone = files_of(&other);
        let of_alone: BTreeSet<ObjectName> = [ObjectKind::Pack, ObjectKind::Index]
            .iter()
            .zip(before)
            .flat_map(|(kind, before)| self.names(*kind).difference(&before).cloned().collect::<Vec<_>>())
            .collect();
        Catalogue::load(&self.context).unwrap();
        let second_witness = Session::begin(&self.context.repository).unwrap();
        let memory = self.memory.fork();
        drop((witness, second_witness));

        let (victims, partners) = self.choose(&memory, &first_slot, &two_slots, &of_two, &of_alone);
        let aims = self.aims();
        let expected = BTreeMap::from([("first", first), ("second", second), ("other/alone", alone)]);
        Template {
            kind: self.kind,
            memory,
            folder: self.folder,
            victims,
            partners,
            aims,
            older: self.older,
            older_cache,
            expected,
            seeds: AtomicU64::new(0),
        }
    }

    pub(super) fn aims(&self) -> BTreeMap<Victim, usize> {
        let repository = &self.context.repository;
        let session = Session::begin(repository).unwrap();
        let catalogue = Catalogue::load(&self.context).unwrap();
        let offset = |id| session.locate(id).unwrap().expect("the chunk has a place").record_offset as usize + 9;
        let steady = repository.keys().chunk_id(&noise(10, 20_000));
        let node = catalogue.find("second").unwrap().snapshot.sources[0].tree.id;
        let aims = BTreeMap::from([(Victim::DataPack, offset(&steady)), (Victim::NodePack, offset(&node))]);
        session.end().unwrap();
        aims
    }

    #[allow(clippy::type_complexity)]
    pub(super) fn choose(
        &self,
        memory: &MemoryBackend,
        first_slot: &BTreeSet<ObjectName>,
        slots: &BTreeSet<ObjectName>,
        of_two: &BTreeSet<ObjectName>,
        of_alone: &BTreeSet<ObjectName>,
    ) -> (BTreeMap<Victim, Vec<ObjectName>>, BTreeMap<Victim, (ObjectName, Vec<u8>)>) {
        let repository = &self.context.repository;
        let session = Session::begin(repository).unwrap();
        let catalogue = Catalogue::load(&self.context).unwrap();
        let (first, second) = (catalogue.find("first").unwrap(), catalogue.find("second").unwrap());
        let steady = repository.keys().chunk_id(&noise(10, 20_000));
        let pack_of = |id| pack_name(session.locate(id).unwrap().expect("the chunk has a place").pack);
        let data = pack_of(&steady);
        let node = pack_of(&second.snapshot.sources[0].tree.id);
        let is_of = |name: &ObjectName, kind: &str| {
            let description = describe(repository, name).unwrap();
            description.fields.contains(&("record kind".into(), kind.into()))
        };
        let another = |name: &ObjectName, kind| {
            let mut others = of_two.iter().filter(|other| *other != name && is_of(other, kind));
            others.next().expect("another pack of the kind").clone()
        };
        let knows = |name: &&ObjectName| {
            let fields = describe(repository, name).unwrap().fields;
            fields.iter().any(|(_, value)| *value == steady.to_string())
        };
        let fragments = self.names(ObjectKind::Index);
        let fragment = fragments.iter().find(knows).unwrap().clone();
        assert!(!of_alone.contains(&fragment), "the snapshot that must not be harmed has a fragment of its own");
        let root = |listed: &copal_engine::catalogue::Listed| {
            ObjectName::new(ObjectKind::Root, listed.root.object_name()).unwrap()
        };
        let label = |listed: &copal_engine::catalogue::Listed| {
            let of = |name: &&ObjectName| name.name().starts_with(&listed.snapshot.id.to_string());
            self.names(ObjectKind::Label).iter().find(of).unwrap().clone()
        };
        let names =
            |kind| -> Vec<ObjectName> { memory.list(kind).unwrap().into_iter().map(|object| object.name).collect() };
        let mut condemned: Vec<ObjectName> = self.names(ObjectKind::Condemned).into_iter().collect();
        condemned.sort_by_key(|name| name.name().len());
        let sessions: Vec<ObjectName> = names(ObjectKind::Session);
        let slot_names: Vec<&ObjectName> = slots.iter().filter(|name| !name.name().contains('-')).collect();
        let first_slot = slot_names.iter().find(|name| first_slot.contains(**name)).unwrap();
        let second_slot = slot_names.iter().find(|name| *name != first_slot).unwrap();
        let grants = [(Victim::OldGrant, 1), (Victim::NewGrant, 2)].map(|(victim, epoch)| {
            let of = |slot: &ObjectName| self.keys_ending(&format!("{}-{epoch:08x}", slot.name())).into_iter().next();
            Some((victim, of(first_slot)?, of(second_slot)?))
        });
        let mut pairs = vec![
            (Victim::KeySlot, (*first_slot).clone(), (*second_slot).clone()),
            (Victim::DataPack, data.clone(), another(&data, "Data")),
            (Victim::NodePack, node.clone(), another(&node, "Node")),
            (
                Victim::Fragment,
                fragment.clone(),
                fragments.iter().find(|other| **other != fragment && !of_alone.contains(*other)).unwrap().clone(),
            ),
            (Victim::Root, root(second), root(first)),
            (Victim::Label, label(second), label(first)),
            (Victim::Condemned, condemned[0].clone(), condemned[1].clone()),
            (Victim::Session, sessions[0].clone(), sessions[1].clone()),
        ];
        pairs.extend(grants.into_iter().flatten());
        let rosters = self.rosters();
        assert_eq!(rosters.len(), 2);
        let mut victims = BTreeMap::from([
            (Victim::Config, vec![config_name()]),
            (Victim::Roster, rosters[..1].to_vec()),
            (Victim::Rosters, rosters.clone()),
        ]);
        let another = |name: &ObjectName| (name.clone(), of_another_repository(name));
        let first_roster = ObjectName::new(ObjectKind::KeySlot, "roster-00000001").unwrap();
        let roster = (rosters[0].clone(), of_another_repository(&first_roster));
        let mut partners = BTreeMap::from([
            (Victim::Config, another(&config_name())),
            (Victim::Roster, roster.clone()),
            (Victim::Rosters, roster),
        ]);
        for (victim, name, partner) in pairs {
            let bytes = memory.read(&partner, u64::MAX).unwrap();
            victims.insert(victim, vec![name]);
            partners.insert(victim, (partner, bytes));
        }
        session.end().unwrap();
        (victims, partners)
    }
}

fn of_another_repository(name: &ObjectName) -> Vec<u8> {
    let memory = MemoryBackend::new();
    let options = InitOptions {
        parameters: Parameters::default(),
        suite: CipherSuite::Aes256Gcm,
        stretch: StretchCost::default(),
        slot_label: String::new(),
        created_seconds: 0,
    };
    Repository::init(Arc::new(memory.clone()), Arc::new(SeededEntropy::new(99)), &key(1), &options).unwrap();
    memory.read(name, 1 << 16).unwrap()
}
