"""Test doubles and drivers for end-to-end tests. Each module's docstring says how to use it.

=================== ===========================================================================
``oracle``          the hash that plays a language model; tokenizer, chat template (pure)
``oracle_wire``     requests, chunks and errors of the chat-completions format (pure)
``oracle_settings`` what the server can be told (Settings, Script, Fault) and tells (Record,
                    Counters)
``oracle_server``   the strict server: in a thread, in a process, or by hand
``fault_proxy``     a TCP proxy that cuts, stalls, drips, doubles and garbles bytes
``pty_driver``      a program in a real terminal: keys, screen, job control, termios
``processes``       the command line in a clean environment; kill at a byte; leftovers
=================== ===========================================================================

A resume, proved exact::

    with OracleServer(Settings(length=200)) as server:
        cli = Cli(tmp_path)
        server.enqueue(Script(fault=Fault("cut", after_tokens=77)))
        first = cli.run("run", "--base-url", server.base_url, "-m", "oracle", "Tell me.")
        rest = cli.run("resume")
        assert first.text + rest.text == server.expected("Tell me.")
        cli.assert_no_leftovers()

Acting at an exact token, without timing::

    server.enqueue(Script(hold_at=40))          # generates 40 tokens, then waits
    with cli.start("run", ...) as process:
        server.wait_until(lambda counters: counters.held == 1)
        process.send_signal(signal.SIGTERM)
        ...

The same in a terminal::

    with PtyProgram(cli.command("chat", ...), env=cli.env, cwd=cli.cwd) as chat:
        chat.wait_for_screen("Space pause")
        chat.send_keys("space")
        chat.wait_for_screen("PAUSED")
"""
