//! The folder and the values that random calls work on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use dbp_host::host::resolver::Library;
use dbp_host::host::sources::SourceStore;
use dbp_host::host::{Diagnosis, Options, Session, engine};
use rhai::{Dynamic, Engine, Scope};

const SETUP: &str = include_str!("world.rhai");

/// The largest tensor that calls may make, and the operations they may take.
const MAX_TENSOR_BYTES: u64 = 64 << 20;
const MAX_OPERATIONS: u64 = 300_000;

/// An engine, and the variables that scripts find.
pub struct World {
    pub session: Rc<Session>,
    /// For messages.
    pub library: Library,
    pub engine: Rc<Engine>,
    pub scope: Scope<'static>,
    /// What was printed last.
    pub printed: Rc<RefCell<String>>,
    /// Names of variables by their type, as scripts know it.
    pub by_kind: BTreeMap<String, Vec<String>>,
}

/// Pictures and masks to open, and files that are none.
pub fn fill(folder: &Path) {
    let picture = |seed: u32| {
        image::RgbImage::from_fn(20, 16, |x, y| {
            image::Rgb([(x * 12 + seed) as u8, (y * 15) as u8, ((x * y + seed * 31) % 251) as u8])
        })
    };
    let mask =
        |seed: u32| image::GrayImage::from_fn(20, 16, |x, y| image::Luma([u8::from((x + y + seed).is_multiple_of(3))]));
    for place in ["photos", "labeled/a", "labeled/b", "pairs/images", "pairs/masks"] {
        std::fs::create_dir_all(folder.join(place)).unwrap();
    }
    for number in 0..6 {
        let name = format!("{number:03}.png");
        picture(number).save(folder.join("photos").join(&name)).unwrap();
        picture(number).save(folder.join(if number % 2 == 0 { "labeled/a" } else { "labeled/b" }).join(&name)).unwrap();
        picture(number).save(folder.join("pairs/images").join(&name)).unwrap();
        mask(number).save(folder.join("pairs/masks").join(&name)).unwrap();
    }
    std::fs::write(folder.join("photos/broken.png"), b"not a picture").unwrap();
    std::fs::write(folder.join("broken.safetensors"), [8, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']).unwrap();
    std::fs::write(folder.join("round.rhai"), SETUP).unwrap();
}

impl World {
    /// Runs the set-up script in `folder`, which is the current one, with `seed`.
    pub fn new(folder: &Path, seed: u64) -> Result<Self, String> {
        let options = Options {
            runs: folder.join("runs"),
            seed: Some(seed),
            max_tensor_bytes: MAX_TENSOR_BYTES,
            max_operations: MAX_OPERATIONS,
            ..Options::new(folder.join("round.rhai"))
        };
        let session = Session::new(options).map_err(|err| err.to_string())?;
        session.set_printer(|_| {});
        let store = SourceStore::disk(&session.options.script).map_err(|err| err.to_string())?;
        let library = Library::new(store);
        let engine = engine::build(&session);
        let mut scope = Scope::new();
        let ast = engine.compile_with_scope(&scope, SETUP).map_err(|err| err.to_string())?;
        let done = engine.run_ast_with_scope(&mut scope, &ast);
        done.map_err(|err| format!("the set-up failed: {}", Diagnosis::of(*err, &library, &engine)))?;
        keep_weights(folder);
        let mut world = Self { session, library, engine, scope, printed: Rc::default(), by_kind: BTreeMap::new() };
        world.sort_variables();
        Ok(world)
    }

    /// Keeps `value` as the variable `name`.
    pub fn keep(&mut self, name: &str, value: Dynamic) {
        self.scope.set_or_push(name, value);
        self.sort_variables();
    }

    /// Listens to what is printed; a loop over steps sends it to its progress bar.
    pub fn listen(&self) {
        let printed = Rc::clone(&self.printed);
        self.session.set_printer(move |text| text.clone_into(&mut printed.borrow_mut()));
    }

    fn sort_variables(&mut self) {
        self.by_kind.clear();
        for (name, _, value) in self.scope.iter() {
            let kind = self.engine.map_type_name(value.type_name()).to_owned();
            self.by_kind.entry(kind).or_default().push(name.to_owned());
        }
    }
}

/// The checkpoint of the set-up's run as a file that scripts may load.
fn keep_weights(folder: &Path) {
    let target = folder.join("one.safetensors");
    let runs = std::fs::read_dir(folder.join("runs")).into_iter().flatten().flatten();
    for run in runs {
        let inside = std::fs::read_dir(run.path()).into_iter().flatten().flatten().map(|entry| entry.path());
        for place in std::iter::once(run.path()).chain(inside) {
            let weights = place.join("checkpoints/last/model.safetensors");
            if !target.exists() && weights.exists() {
                std::fs::copy(weights, &target).unwrap();
            }
        }
    }
}
