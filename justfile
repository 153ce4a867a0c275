# Shorthands; `.ci/run` is what must pass.
fmt:
    cargo fmt
lint:
    cargo clippy --ignore-rust-version --all-targets -- -D warnings
test:
    tests/run.sh
it name="":
    cargo test --ignore-rust-version --test it {{name}}
fuzz target seconds="600":
    fuzz/run.sh {{target}} {{seconds}}
bench:
    bench/run.sh
deny:
    cargo deny check
doc:
    cargo doc --no-deps --ignore-rust-version
# Long files, to look at.
shape:
    find src tests -name '*.rs' | xargs wc -l | sort -n | tail -15
ci:
    .ci/run
