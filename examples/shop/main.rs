//! A small application of the kind that Copal is for: a server that keeps rows in SQLite (write-ahead log)
//! and objects in a folder, and writes all the time. `shop FOLDER` runs it until it is killed;
//! `examples/shop/copal.toml` is its configuration.

mod server;

fn main() {
    let folder = std::env::args_os().nth(1).expect("shop FOLDER");
    server::serve(folder.as_ref()).expect("the shop serves");
}
