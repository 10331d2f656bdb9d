/** What the judge starts as its server: hands it on to the test, where the servers are, until it is told to end. */
import { connect } from 'node:net';

const socket = connect(process.argv[2]!);
process.stdin.pipe(socket, { end: false });
socket.pipe(process.stdout);
socket.once('close', () => process.exit());
process.once('SIGTERM', () => socket.end());
