// peer.js MODULES ADDRESS WORD... - the npm client multicast-dns on the interface that has ADDRESS.
//   ask NAME TYPE     prints each record of the answers: "NAME TYPE TTL FLUSH DATA"
//   be LABEL PORT IP  is a node of another make: answers for LABEL._dair._tcp.local
const [modules, address, word, ...rest] = process.argv.slice(2);
const mdns = require(modules + '/multicast-dns')({ interface: address, bind: '0.0.0.0', reuseAddr: true });
const text = (data) => (data && data.target ? `${data.target}:${data.port}` : [].concat(data).join(' '));
const show = (r) => console.log(r.name, r.type, r.ttl, !!r.flush, text(r.data));

if (word === 'ask') {
    const [name, type] = rest;
    mdns.on('response', (p) => [...p.answers, ...p.additionals].forEach(show));
    mdns.on('ready', () => mdns.query([{ name, type }]));
    setInterval(() => mdns.query([{ name, type }]), 1100);
}
if (word === 'be') {
    const [label, port, ip] = rest;
    const type = '_dair._tcp.local', name = `${label}.${type}`, target = `${label}.local`;
    const data = ['id=ee0102030405060708090a0b0c0d0e0f', 'in=00000000000000ee', 'cf=00000000000000c1', 'cv=1', 'ep=4'];
    const answers = [
        { name: type, type: 'PTR', ttl: 4500, data: name },
        { name, type: 'SRV', ttl: 120, flush: true, data: { port: +port, target } },
        { name, type: 'TXT', ttl: 4500, flush: true, data },
        { name: target, type: 'A', ttl: 120, flush: true, data: ip },
    ];
    const known = (q) => (q.answers || []).some((a) => a.type === 'PTR' && a.data === name);
    mdns.on('query', (q) => {
        if (q.questions.some((x) => x.name.toLowerCase() === type)) console.log('asked', known(q) ? 'known' : 'unknown');
        if (q.questions.some((x) => answers.some((a) => a.name === x.name)) && !known(q)) mdns.respond({ answers });
    });
    process.stdin.on('end', () => mdns.respond(answers.map((a) => ({ ...a, ttl: 0 })), () => process.exit(0))).resume();
}
