#!/bin/sh
# What the web server runs: the state of the machine, and what it was asked for.
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REQUEST_METHOD $QUERY_STRING"
cat
cat /proc/uptime /proc/loadavg
free
