// Runs the scenario under Node: `node client.cjs PACKAGE URL KEY` prints what the client answered, as JSON.
const scenario = require("./scenario.cjs");

const [, , name, endpoint, apiKey] = process.argv;
const { Neatlogs } = require(`${name}/browser`);
scenario(Neatlogs, endpoint, apiKey).then((said) => console.log(JSON.stringify(said)));
