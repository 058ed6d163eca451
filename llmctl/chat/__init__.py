"""The interactive session: prompt, reply, keys, slash commands.

`app` is the loop, `keyboard` says what a key does while a reply is there, `view` shows it,
`commands` are the words that begin with a slash.
"""
