//! Goal: a configuration says what it means, and a mistake in it is refused with its line. Method: texts,
//! good and bad.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use copal_application::config::{Pinning, SourceSpec};
use copal_application::{Configuration, parse};
use copal_manifest::snapshot::Consistency;
use copal_source::hook::{Action, OnError, When};

#[track_caller]
fn read(text: &str) -> Configuration {
    parse(Path::new("/etc/copal/copal.toml"), text).unwrap_or_else(|mistake| panic!("{mistake}"))
}

#[test]
fn the_short_form_is_an_application_of_one_service() {
    let configuration = read(
        r#"
        [app.hub]
        default = true
        max_snapshots = 5
        config_version = 7
        [[app.hub.source]]
        kind = "sqlite"
        label = "hub.db"
        path = "hub.db"
        [[app.hub.source]]
        kind = "tree"
        path = "/srv/hub/bucket"
        exclude = ["*"]
        include = ["one.txt"]
        [[app.hub.hook]]
        when = "pre"
        argv = ["/bin/true"]
        timeout = "1m 30s"
        on_error = "continue"
        [[app.hub.hook]]
        when = "pre"
        signal = "STOP"
        pid_file = "/run/hub.pid"
        "#,
    );
    let hub = configuration.application(None).unwrap();
    assert_eq!((hub.name.as_str(), hub.max_snapshots, hub.config_version.as_str()), ("hub", Some(5), "7"));
    assert_eq!(hub.class.pinning, Pinning::Spool);
    assert_eq!(hub.policy.wanted, Consistency::Application);
    let [service] = hub.services.as_slice() else { panic!("{hub:?}") };
    let labels: Vec<&str> = service.sources.iter().map(|source| source.label.as_str()).collect();
    assert_eq!(labels, ["hub.db", "bucket"]);
    assert_eq!(service.sources[0].spec.path(), Some(Path::new("/etc/copal/hub.db")));
    let SourceSpec::Tree(tree) = &service.sources[1].spec else { panic!("{service:?}") };
    assert_eq!(tree.exclusions.patterns, ["*", "!one.txt"]);
    let hook = &service.hooks[0];
    assert_eq!((hook.when, hook.timeout, hook.on_error), (When::Pre, Duration::from_secs(90), OnError::Continue));
    assert!(matches!(service.hooks[1].action.inverse(), Some(Action::Signal { .. })));
}

#[test]
fn services_come_in_the_order_in_which_they_need_each_other() {
    let configuration = read(
        r#"
        [app.shop.service.web]
        depends_on = ["db", "files"]
        [app.shop.service.db]
        [[app.shop.service.db.source]]
        kind = "postgres"
        dsn = "host=/run/postgresql"
        databases = ["shop"]
        [app.shop.service.files]
        depends_on = ["db"]
        [[app.shop.service.files.source]]
        kind = "tree"
        path = "/srv/files"
        "#,
    );
    let names: Vec<&str> = configuration.applications["shop"].services.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["db", "files", "web"]);
}

#[test]
fn the_example_of_the_shop_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/copal.toml");
    let configuration = parse(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(configuration.application(None).unwrap().sources().count(), 2);
}

/// A mistake is on the line that has `<--` behind it.
#[track_caller]
fn check(text: &str, part: &str) {
    let line = text.lines().position(|line| line.contains("<--")).unwrap() + 1;
    let mistake = parse(Path::new("copal.toml"), &text.replace("<--", "")).unwrap_err();
    assert_eq!(mistake.line, line, "{mistake}");
    assert!(mistake.message.contains(part), "{mistake}");
    assert!(mistake.to_string().starts_with(&format!("copal.toml:{line}: ")), "{mistake}");
}

#[test]
fn mistakes_are_refused_with_the_line() {
    check("[app.a]\nmax_snapshot = 3 <--\n", "did you mean \"max_snapshots\"?");
    check("[app.a]\n[[app.a.source]]\nkind = \"oracle\" <--\npath = \"x\"\n", "no kind \"oracle\"");
    check("[app.a]\n[[app.a.source]]\nkind = \"sqlite\" <--\n", "needs \"path\"");
    check("[app.a]\n[[app.a.source]]\nkind = \"sqlite\"\npath = \"x\"\ndsn = \"y\" <--\n", "has no \"dsn\"");
    check("[app.a]\nmax_snapshots = 0 <--\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n", "at least 1");
    check("[app.a] <--\nmax_snapshots = 1\n", "has no source");
    check(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n[[app.a.hook]]\nwhen = \"before\" <--\nargv = [\"a\"]\n",
        "no \"before\"",
    );
    check(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n[[app.a.hook]]\nwhen = \"pre\"\nargv = [] <--\n",
        "no program",
    );
    check(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n[[app.a.hook]]\nwhen = \"pre\"\nargv = [\"a\"]\ntimeout = \"soon\" <--\n",
        "duration",
    );
    check(
        "[app.a]\n[[app.a.source]]\nkind = \"tree\"\npath = \"x\"\n[[app.a.source]]\nkind = \"sqlite\"\nlabel = \"x\" <--\npath = \"y\"\n",
        "label \"x\"",
    );
    check("[app.a.service.web]\ndepends_on = [\"db\"] <--\n", "no service \"db\"");
    check(
        "[app.a.service.b] <--\ndepends_on = [\"c\"]\n[app.a.service.c]\ndepends_on = [\"b\"]\n",
        "depends on itself",
    );
    check(
        "[app.a]\ndefault = true\n[[app.a.source]]\nkind=\"tree\"\npath=\"x\"\n[app.b]\ndefault = true <--\n[[app.b.source]]\nkind=\"tree\"\npath=\"x\"\n",
        "the default already",
    );
    check("[app.a <--\n", "");
}
