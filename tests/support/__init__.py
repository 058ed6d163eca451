"""Test doubles and drivers for end-to-end tests. Each module's docstring says how to use it.

========================= =====================================================================
``oracle``                the hash that plays a language model; tokenizer, chat template (pure)
``oracle_wire``           requests, chunks and errors of the chat-completions format (pure)
``oracle_server``         the strict server over both: faults, counters, records of requests
``fault_proxy``           a TCP proxy that cuts, stalls, drips, doubles and garbles bytes
``pty_driver``            a program in a real terminal: keys, screen, job control, termios
``processes``             the command line in a clean environment; kill at a byte; leftovers
========================= =====================================================================

A resume, proved exact::

    with OracleServer(Settings(length=200)) as server:
        cli = Cli(tmp_path, env={"LLMCTL_...": "..."})
        server.enqueue(Script(fault=Fault("cut", after_tokens=77)))
        first = cli.run("run", "--base-url", server.base_url, "-m", "oracle", "Tell me.")
        rest = cli.run("resume")
    assert first.stdout + rest.stdout == whole_reply
"""
