"""Strings that have broken pages elsewhere: markup, handlers, templates, addresses, directions, and what ends other things."""

NAUGHTY = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "' onmouseover='window.pwned=1' autofocus onfocus='window.pwned=1",
    "<svg onload=window.pwned=1><animate onbegin=window.pwned=1 attributeName=x></svg>",
    "</title></textarea></style></pre><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "javascript:window.pwned=1//",
    "data:text/html,<script>window.pwned=1</script>",
    "{{7*7}}{% raw %}${7*7}<%= 7*7 %>#{7*7}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.popen('id').read() }}",
    "\u202eevil\u202c \u2066\u2067isolate\u2069 \u200bzero\ufeff",
    "\x00\x07\x1b]0;title\x07\x1b[31mred",
    "<!-- --!><![CDATA[<script>window.pwned=1</script>]]>",
    "&lt;script&gt;&#x3c;script&#x3e;window.pwned=1",
    "`code` `<b>` ``` `</code><script>window.pwned=1</script>`",
    "🏳️‍🌈👩‍👩‍👧 ﷽ Ｔｅｓｔ ẗ̸̢͔e̷̘̐x̶̙̄t",
    "../../../etc/passwd%00?x=1&y=2#z;a=b",
    "a" * 3000,
    "<a href='javascript:window.pwned=1' target=_blank>click</a><form action='//evil.example'><input type=submit>",
    "<base href='//evil.example/'><meta http-equiv=refresh content='0;url=//evil.example'><link rel=stylesheet href=//evil.example>",
)
