//! The progress bar on a real terminal, which `script` provides and a small
//! emulation looks at.

use std::process::Stdio;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::timeout,
};

use crate::{DEADLINE, fake::Fake};

/// What a terminal of this width shows of what is written to it.
struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Something ran over the end of a line.
    wrapped: bool,
}

impl Screen {
    fn after(columns: usize, output: &str) -> Self {
        let mut screen = Self {
            columns,
            rows: vec![Vec::new()],
            row: 0,
            column: 0,
            wrapped: false,
        };
        let mut rest = output.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.column = 0,
                '\n' => screen.down(),
                '\x1b' => {
                    rest.next();
                    let mut number = String::new();
                    let order = loop {
                        match rest.next().expect("a sequence ends") {
                            c if c.is_ascii_alphabetic() => break c,
                            c => number.push(c),
                        }
                    };
                    screen.obey(order, number.parse().unwrap_or(1));
                }
                c => screen.put(c),
            }
        }
        screen
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == self.rows.len() {
            self.rows.push(Vec::new());
        }
    }

    fn obey(&mut self, order: char, number: usize) {
        match order {
            'A' => self.row = self.row.saturating_sub(number),
            'B' => (0..number).for_each(|_| self.down()),
            'K' => self.rows[self.row].clear(),
            'm' => {}
            other => panic!("{other} is not emulated"),
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.columns {
            self.wrapped = true;
            self.column = 0;
            self.down();
        }
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = c;
        self.column += 1;
    }

    /// The lines that are not blank.
    fn lines(&self) -> Vec<String> {
        let lines = self
            .rows
            .iter()
            .map(|row| row.iter().collect::<String>().trim_end().to_owned());
        lines.filter(|line| !line.is_empty()).collect()
    }
}

#[test]
fn the_emulation_wraps_where_a_terminal_does() {
    let screen = Screen::after(4, "abcd\rx\r\nabcde");
    assert_eq!(
        (screen.lines(), screen.wrapped),
        (vec!["xbcd".into(), "abcd".into(), "e".into()], true)
    );
    let screen = Screen::after(4, "abcd\r\x1b[2K\r\nb\x1b[1A\rc");
    assert_eq!((screen.lines(), screen.wrapped), (vec!["c".into(), "b".into()], false));
}

/// A command on a terminal of so many columns, its results elsewhere.
fn on_terminal(fake: &Fake, columns: usize, args: &str) -> Child {
    let command = format!(
        "stty cols {columns} rows 24 && exec {} {args} > /dev/null",
        env!("CARGO_BIN_EXE_asynq")
    );
    Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("ASYNQ_BROKER", fake.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script is there: on Debian, apt-get install bsdutils")
}

/// Reads on until it holds `wanted`, or to the end.
async fn read(child: &mut Child, output: &mut String, wanted: Option<&str>) {
    let terminal = child.stdout.as_mut().unwrap();
    let mut bytes = std::mem::take(output).into_bytes();
    let reading = async {
        let mut chunk = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if wanted.is_some_and(|wanted| text.contains(wanted)) {
                return;
            }
            match terminal.read(&mut chunk).await.unwrap() {
                0 => return,
                count => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    };
    timeout(DEADLINE, reading).await.expect("it writes in time");
    *output = String::from_utf8_lossy(&bytes).into_owned();
}

#[tokio::test]
async fn the_bar_fits_into_narrow_terminals() {
    let fake = Fake::start().await;
    for columns in [20, 30, 44, 60, 120] {
        let mut child = on_terminal(&fake, columns, "bench --tasks 5000");
        let mut output = String::new();
        read(&mut child, &mut output, None).await;
        assert!(child.wait().await.unwrap().success(), "{output}");
        let screen = Screen::after(columns, &output);
        assert!(output.contains(" %"), "{columns}: no bar was drawn: {output:?}");
        assert!(!screen.wrapped, "{columns}: {output:?}");
        assert_eq!(screen.lines(), Vec::<String>::new(), "{columns}: {output:?}");
    }
}

#[tokio::test]
async fn ctrl_c_leaves_no_bar_behind() {
    let fake = Fake::start().await;
    let mut child = on_terminal(&fake, 100, "bench --tasks 10000000 --in-flight 16");
    let mut output = String::new();
    read(&mut child, &mut output, Some("/s, ")).await;
    child.stdin.as_mut().unwrap().write_all(b"\x03").await.unwrap();
    read(&mut child, &mut output, None).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(5), "{output:?}");
    let lines = Screen::after(100, &output).lines();
    assert!(output.contains("^C"), "{output:?}");
    assert!(
        lines.len() == 1 && lines[0].starts_with("asynq: CANCELLED: "),
        "{lines:?}"
    );
}
